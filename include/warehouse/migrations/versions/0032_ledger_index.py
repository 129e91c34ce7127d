"""What a plan reads of the ledger stands in its index: keys and fingerprints, without what was confirmed."""

from alembic import op

revision = "0032"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
alter table sync.ledger
    drop constraint ledger_pkey,
    add constraint ledger_pkey primary key (target, record_id) include (seen);
""")
