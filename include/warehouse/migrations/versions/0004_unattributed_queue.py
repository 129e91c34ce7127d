"""The queue names days of lines without a customer, too."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
comment on column intermediate.account_day_queue.customer_id is
    'The customer whose day a load touched; empty text (never null) for the lines of the day that name no customer.';
""")
