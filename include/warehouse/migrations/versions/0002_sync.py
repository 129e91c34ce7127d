"""What the CRM was told: runs, attempts, the ledger, deliveries, outcomes, failures, the shared call window."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
-- One row per sync of one published run to one target. The counts add up at every moment: a row that is
-- still to be sent counts as failed until the CRM confirmed it.
create table sync.runs (
    sync_id bigint generated always as identity primary key,
    target text not null,
    as_of_date date not null,
    run_id text not null,
    status text not null check (status in ('running', 'finished', 'failed', 'interrupted')),
    queried bigint not null default 0,
    sent bigint not null default 0,
    unchanged bigint not null default 0,
    failed bigint not null default 0,
    held bigint not null default 0,
    calls bigint not null default 0,
    failure text,
    started_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    constraint rows_add_up check (queried = sent + unchanged + failed + held)
);
create index on sync.runs (target, as_of_date);
comment on column sync.runs.run_id is 'The published run whose values were compared and sent.';
comment on column sync.runs.calls is 'HTTP requests of every kind made to the CRM.';

-- One row per CRM record: the values the CRM confirmed, and nothing it did not.
create table sync.ledger (
    target text not null,
    record_id text not null,
    account_id text not null,
    confirmed jsonb not null,
    confirmed_at timestamptz not null default clock_timestamp(),
    sync_id bigint not null references sync.runs,
    primary key (target, record_id)
);
comment on column sync.ledger.confirmed is 'CRM property -> value as a string.';

-- One row per record and call, committed before the call. 'open' = no answer yet: resolved by reading the
-- CRM before anything newer is sent.
create table sync.attempts (
    attempt_id uuid primary key,
    sync_id bigint not null references sync.runs,
    target text not null,
    record_id text not null,
    account_id text not null,
    payload jsonb not null,
    status text not null default 'open'
        check (status in ('open', 'confirmed', 'refused', 'not_done', 'landed', 'not_landed')),
    reason text,
    attempted_at timestamptz not null default clock_timestamp(),
    answered_at timestamptz,
    constraint open_has_no_answer check ((status = 'open') = (answered_at is null))
);
-- A record has at most one attempt without an answer: nothing newer is sent before it is resolved.
create unique index one_open_attempt on sync.attempts (target, record_id) where status = 'open';
create index on sync.attempts (record_id);
comment on column sync.attempts.attempt_id is 'Sent to the CRM as objectWriteTraceId of the row.';
comment on column sync.attempts.status is
    'confirmed, refused: the CRM''s answer. not_done: the call as a whole was refused. '
    'landed, not_landed: no answer came, and reading the CRM told.';

-- One row per value the CRM confirmed: who received what value when. Append-only.
create table sync.deliveries (
    delivery_id bigint generated always as identity primary key,
    sync_id bigint not null references sync.runs,
    run_id text not null,
    as_of_date date not null,
    target text not null,
    account_id text not null,
    record_id text not null,
    field text not null,
    old_value text,
    new_value text not null,
    attempt_id uuid not null references sync.attempts,
    proof text not null check (proof in ('answer', 'read_back')),
    confirmed_at timestamptz not null default clock_timestamp()
);
create index on sync.deliveries (account_id);
create index on sync.deliveries (sync_id);
comment on column sync.deliveries.old_value is 'What the CRM had confirmed before; null where it was never told.';

-- One row per account of a sync that was neither sent nor unchanged, with the one reason.
create table sync.outcomes (
    outcome_id bigint generated always as identity primary key,
    sync_id bigint not null references sync.runs,
    account_id text,
    record_id text,
    outcome text not null check (outcome in ('failed', 'held')),
    reason text not null,
    detail text
);
create index on sync.outcomes (sync_id);

-- One row per record whose last sending the CRM refused; gone once it is confirmed. With dead_at it is a
-- dead letter: held until somebody replays it.
create table sync.failures (
    target text not null,
    record_id text not null,
    account_id text not null,
    tries integer not null check (tries > 0),
    reason text not null,
    payload jsonb not null,
    first_failed_at timestamptz not null default clock_timestamp(),
    last_failed_at timestamptz not null default clock_timestamp(),
    dead_at timestamptz,
    primary key (target, record_id)
);

-- One row per CRM organisation: its newest calls, so that all tasks together stay within its burst limit.
create table sync.call_windows (
    org text primary key,
    calls double precision[] not null default '{}',
    blocked_until double precision not null default 0
);
comment on table sync.call_windows is 'Times are seconds since 1970-01-01 UTC.';
""")
