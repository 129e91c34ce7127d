"""Which calibrations of the tiers were taken away to be made anew, by whom and why."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
create table audit.recalibrations (
    quarter_start date not null,
    scope text not null,
    accounts bigint not null,
    fingerprint text not null,
    made_by_run_id text not null,
    why text not null check (why <> ''),
    asked_at timestamptz not null default clock_timestamp()
);
comment on table audit.recalibrations is
    'Calibrations of the tiers that `stratum tiers recalibrate` took away, as they were: one row per scope of each.';
""")
