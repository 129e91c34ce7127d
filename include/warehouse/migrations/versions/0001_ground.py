"""The ground: schemas, the company, loads, raw rows, quarantine, the queue, runs, checks, the pointer."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
create schema if not exists raw_files;
create schema if not exists raw_hubspot;
create schema if not exists quarantine;
create schema if not exists staging;
create schema if not exists intermediate;
create schema if not exists marts;
create schema if not exists ml;
create schema if not exists candidate;
create schema if not exists published;
create schema if not exists sync;

-- One warehouse holds one company. What a day and an amount mean cannot change after the first load.
create table audit.company (
    is_only boolean primary key default true check (is_only),
    company_name text not null,
    timezone text not null,
    currency char(3) not null,
    bound_at timestamptz not null default clock_timestamp()
);

-- One row per ingest of one entity of one source for one as-of date.
create table audit.loads (
    load_id uuid primary key default gen_random_uuid(),
    load_seq bigint generated always as identity unique,
    source text not null,
    entity text not null,
    as_of_date date not null,
    status text not null check (status in ('loaded', 'absent')),
    files text[] not null default '{}',
    rows_in bigint not null default 0,
    rows_new bigint not null default 0,
    rows_corrected bigint not null default 0,
    rows_unchanged bigint not null default 0,
    rows_quarantined bigint not null default 0,
    rows_unattributed bigint not null default 0,
    rows_later bigint not null default 0,
    started_at timestamptz not null,
    loaded_at timestamptz not null default clock_timestamp(),
    constraint rows_add_up check (rows_in = rows_new + rows_corrected + rows_unchanged + rows_quarantined),
    constraint unattributed_are_kept check (rows_unattributed <= rows_new + rows_corrected + rows_unchanged)
);
create index on audit.loads (as_of_date, source, entity);
comment on column audit.loads.rows_unattributed is 'Kept rows that name no customer.';
comment on column audit.loads.rows_later is 'Rows dated after the as-of date: seen, left for their own day, not in rows_in.';

-- One row per load and quarantine reason; the rows of a load sum to its rows_quarantined.
create table audit.load_reasons (
    load_id uuid not null references audit.loads on delete cascade,
    reason text not null,
    rows bigint not null check (rows > 0),
    primary key (load_id, reason)
);

-- One row per refused row as it stood in its source; seen again in a later load it is not doubled.
create table quarantine.rows (
    source text not null,
    entity text not null,
    row_hash text not null,
    reason text not null,
    source_file text,
    source_row bigint,
    original jsonb not null,
    first_load_id uuid not null,
    last_load_id uuid not null,
    quarantined_at timestamptz not null default clock_timestamp(),
    primary key (source, entity, row_hash)
);

-- One row per version of an order line; the newest load_seq of a row_key is the current one.
create table raw_files.order_lines (
    load_id uuid not null,
    load_seq bigint not null,
    loaded_at timestamptz not null,
    known_on date not null,
    source_file text not null,
    source_row bigint not null,
    row_key text not null,
    row_hash text not null,
    order_id text not null,
    customer_id text,
    product_id text not null,
    product_name text,
    product_category text,
    country text,
    quantity numeric(18, 4) not null,
    unit_price numeric(18, 4) not null,
    amount numeric(18, 2) not null,
    currency char(3) not null,
    ordered_at timestamptz not null,
    line_type text not null check (line_type in ('sale', 'return', 'non_product')),
    primary key (row_key, load_seq)
);
create index on raw_files.order_lines (customer_id, ordered_at);
create index on raw_files.order_lines using brin (ordered_at);
comment on column raw_files.order_lines.known_on is
    'The day Stratum could know the row: the event''s own day, or, where a load had covered that day before, '
    'the as-of date of the load that landed it.';
comment on column raw_files.order_lines.amount is 'Signed, in currency: returns are negative.';

-- One row per version of a CRM company; only pulled properties that changed make a new version.
create table raw_hubspot.companies (
    load_id uuid not null,
    load_seq bigint not null,
    loaded_at timestamptz not null,
    known_on date not null,
    valid_from timestamptz not null,
    record_id text not null,
    account_number text,
    is_archived boolean not null,
    row_hash text not null,
    properties jsonb not null,
    primary key (record_id, load_seq)
);

-- Account-days a load touched (new rows, and the old place of corrected ones), until a build consumed them.
create table intermediate.account_day_queue (
    load_id uuid not null,
    customer_id text not null,
    order_date date not null,
    claimed_by text,
    primary key (load_id, customer_id, order_date)
);

-- One row per build of an as-of date.
create table audit.runs (
    run_id text primary key,
    as_of_date date not null,
    status text not null check (status in ('building', 'built', 'published', 'failed')),
    code_version text not null,
    started_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    failure text
);
create index on audit.runs (as_of_date);

-- At most one row: the run that may build and publish, until its lease ends.
create table audit.build_lock (
    is_only boolean primary key default true check (is_only),
    run_id text not null,
    as_of_date date not null,
    acquired_at timestamptz not null,
    lease_until timestamptz not null
);

-- One row per expectation of a gate in a run.
create table audit.checks (
    check_id bigint generated always as identity primary key,
    run_id text not null,
    as_of_date date not null,
    gate text not null,
    table_name text not null,
    expectation text not null,
    column_name text,
    arguments jsonb not null,
    success boolean not null,
    observed jsonb not null,
    checked_at timestamptz not null default clock_timestamp()
);
create index on audit.checks (run_id, gate);

-- One row per dbt node (model, seed, test) executed in a run.
create table audit.dbt_nodes (
    node_seq bigint generated always as identity primary key,
    run_id text not null,
    as_of_date date not null,
    node_id text not null,
    resource_type text not null,
    status text not null,
    seconds double precision not null,
    rows_affected bigint,
    message text,
    finished_at timestamptz not null default clock_timestamp()
);
create index on audit.dbt_nodes (run_id);

-- One row per change of what is published, or of its history.
create table audit.publishes (
    publish_id bigint generated always as identity primary key,
    run_id text not null,
    as_of_date date not null,
    action text not null check (action in ('publish', 'history', 'rollback', 'drop')),
    previous_run_id text,
    rows jsonb not null,
    published_at timestamptz not null default clock_timestamp()
);

-- The pointer: the one row that says which run everybody reads.
create table published.current_run (
    is_only boolean primary key default true check (is_only),
    run_id text not null,
    as_of_date date not null,
    published_at timestamptz not null
);
""")
