"""Syncs that a brake holds, and who let them go on."""

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
alter table sync.runs drop constraint runs_status_check;
alter table sync.runs add constraint runs_status_check
    check (status in ('running', 'finished', 'failed', 'interrupted', 'held'));
comment on column sync.runs.status is
    'held: a brake or a switch let nothing be sent; interrupted: its process died.';

-- One row per question to a person: may this sync, which a brake stopped, be sent?
create table sync.holds (
    hold_id bigint generated always as identity primary key,
    target text not null,
    sync_id bigint not null references sync.runs,
    run_id text not null,
    as_of_date date not null,
    fingerprint text not null,
    to_send bigint not null check (to_send >= 0),
    reasons jsonb not null check (jsonb_typeof(reasons) = 'array' and reasons <> '[]'),
    status text not null default 'waiting'
        check (status in ('waiting', 'approved', 'rejected', 'expired', 'superseded')),
    opened_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null,
    decided_at timestamptz,
    decided_by text,
    why text,
    constraint closed_at_some_time check ((status = 'waiting') = (decided_at is null)),
    constraint decided_by_a_person check ((status in ('approved', 'rejected')) = (decided_by is not null))
);
create unique index one_waiting_hold on sync.holds (target) where status = 'waiting';
comment on column sync.holds.sync_id is
    'The sync that was stopped first; later ones of the same plan name the hold in sync.runs.';
comment on column sync.holds.fingerprint is
    'Of what was held: the published run and the mapping it would have been sent by.';
comment on column sync.holds.to_send is 'Records that would have been sent; an answer holds for no more than these.';
comment on column sync.holds.reasons is 'Each brake with its figure, its limit, and what it says.';
comment on column sync.holds.decided_by is 'The person: the user of the machine or of Airflow. Null where nobody answered.';

alter table sync.runs add column published bigint not null default 0;
comment on column sync.runs.published is 'Accounts that were published; queried counts records to be cleared besides.';
update sync.runs set published = queried;

alter table sync.runs add column hold_id bigint references sync.holds;
comment on column sync.runs.hold_id is
    'The hold that stopped it, or whose approval let it be sent; null where no brake spoke.';
""")
