"""Behavior events and the queue of account-days they touch."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
-- One row per version of a behavior event; the newest load_seq of a row_key is the current one.
create table raw_files.events (
    load_id uuid not null,
    load_seq bigint not null,
    loaded_at timestamptz not null,
    known_on date not null,
    source_file text not null,
    source_row bigint not null,
    row_key text not null,
    row_hash text not null,
    event_id text,
    customer_id text,
    user_id text,
    session_id text,
    event_name text not null,
    feature text,
    duration_s numeric(12, 3),
    event_at timestamptz not null,
    primary key (row_key, load_seq)
);
create index on raw_files.events (customer_id, event_at);
create index on raw_files.events using brin (event_at);
comment on column raw_files.events.event_id is 'The id the source gives the event; null where it gives none.';
comment on column raw_files.events.customer_id is
    'The account as the orders name it; null where the event names none.';

-- Usage days a load touched (new events, and the old place of corrected ones), until a build consumed them.
create table intermediate.usage_day_queue (
    load_id uuid not null,
    customer_id text not null,
    usage_date date not null,
    claimed_by text,
    primary key (load_id, customer_id, usage_date)
);
""")
