"""Targets of every kind: jobs of asynchronous writes, cleared values, a switch for each target."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
alter table sync.attempts add column job_id text;
comment on column sync.attempts.job_id is
    'The CRM''s id of the asynchronous write, noted before a row was handed to it; null where the call answers at once.';
comment on column sync.attempts.attempt_id is
    'Names the row to the CRM: HubSpot''s objectWriteTraceId, the idempotency key of a webhook.';

alter table sync.deliveries alter column new_value drop not null;
comment on column sync.deliveries.new_value is 'Null where the value was cleared.';
comment on column sync.ledger.confirmed is 'CRM field -> value as a string; null where we cleared it.';

-- One row per target that is switched off: nothing is sent to it, not even the rest of a running sync.
create table sync.switches (
    target text primary key,
    switched_by text not null,
    reason text not null,
    switched_at timestamptz not null default clock_timestamp()
);

-- One row per CRM record that is given up until somebody replays it.
create view sync.dead_letters as
select target, record_id, account_id, tries, reason, payload, first_failed_at, last_failed_at, dead_at
from sync.failures
where dead_at is not null;
""")
