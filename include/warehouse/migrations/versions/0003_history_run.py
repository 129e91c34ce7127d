"""The history's pointers: which run's tiers are shown for each date."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
-- For each date, the run that published.account_tiers shows: the last one published for it and not rolled back.
create table published.history_run (
    as_of_date date primary key,
    run_id text not null
);
""")
