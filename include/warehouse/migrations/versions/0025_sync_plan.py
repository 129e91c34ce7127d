"""Planning in SQL: the ledger remembers the published row whose values are all confirmed."""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
alter table sync.ledger add column seen bigint;
comment on column sync.ledger.seen is
    'Fingerprint of the published row of which all that is wanted is confirmed; null where that is not known. '
    'Losing it costs time, never a wrong value.';

-- Whoever writes other values than a plan does (a read of the CRM, a backup) must not leave the fingerprint behind.
create function sync.forget_seen() returns trigger language plpgsql as $$
begin
    new.seen := null;
    return new;
end
$$;
create trigger forget_seen before update on sync.ledger
for each row when (new.confirmed is distinct from old.confirmed and new.seen is not distinct from old.seen)
execute function sync.forget_seen();
""")
