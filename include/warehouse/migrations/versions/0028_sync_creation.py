"""Records that a sync makes: told by their key, and known to us before the next pull shows them."""

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
alter table sync.attempts add column by_key boolean not null default false;
comment on column sync.attempts.by_key is
    'The row was told by the account''s key, so that the CRM makes the record where none has it. Until the CRM named '
    'the record, record_id is new: and the account''s id.';

alter table sync.ledger add column awaits_pull boolean not null default false;
comment on column sync.ledger.awaits_pull is
    'The record was found or made by its key, and no pull has brought it yet as the account''s own.';
-- An account has one record of that kind: a second one would be a double.
create unique index one_record_by_key on sync.ledger (target, account_id) where awaits_pull and gone_at is null;
create index ledger_of_account on sync.ledger (target, account_id);
""")
