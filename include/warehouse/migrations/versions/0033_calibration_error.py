"""The calibration error of a measured month-end is kept with it: who reads it reckons nothing again."""

from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
alter table ml.calibration_drift add column calibration_error double precision;
comment on column ml.calibration_drift.calibration_error is
    'Of part 0: the mean distance of told and true over the tenths, by accounts.';
update ml.calibration_drift as whole set calibration_error = (
    select sum(tenths.accounts * abs(tenths.mean_probability - tenths.observed_rate)) / sum(tenths.accounts)
    from ml.calibration_drift as tenths
    where tenths.run_id = whole.run_id and tenths.model = whole.model and tenths.part > 0
) where whole.part = 0;
alter table ml.calibration_drift
    add constraint calibration_error_of_the_whole check ((part = 0) = (calibration_error is not null));
""")
