"""Operations: loads that were taken out again, dates that a backfill asked for, what housekeeping removed."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
alter table audit.loads drop constraint loads_status_check;
alter table audit.loads add constraint loads_status_check check (status in ('loaded', 'absent', 'retracted'));
alter table audit.loads add column retracted_at timestamptz;
alter table audit.loads add column retracted_why text;
alter table audit.loads add column rows_retracted bigint;
alter table audit.loads add constraint retraction_is_whole check (
    (status = 'retracted') = (retracted_at is not null and retracted_why is not null and rows_retracted is not null)
);

-- Dates a backfill asked for, until their build begins: that build fills the history and moves no pointer.
create table audit.backfill_requests (
    as_of_date date primary key,
    requested_at timestamptz not null default clock_timestamp()
);
alter table audit.runs add column is_backfill boolean not null default false;

-- One row per thing a housekeeping run removed.
create table audit.housekeeping (
    housekeeping_id bigint generated always as identity primary key,
    as_of_date date not null,
    thing text not null,
    older_than date,
    removed bigint not null,
    done_at timestamptz not null default clock_timestamp()
);
""")
