"""What reading a CRM back found, and a ledger that may be restored or rebuilt."""

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
alter table sync.ledger alter column sync_id drop not null;
comment on column sync.ledger.sync_id is
    'The sync that was confirmed last; null where the row was restored from a backup or rebuilt by reading the CRM.';
alter table sync.ledger add column proof text not null default 'answer' check (proof in ('answer', 'read_back'));
comment on column sync.ledger.proof is 'How the newest of the values are known.';
alter table sync.ledger add column gone_at timestamptz;
comment on column sync.ledger.gone_at is
    'When a reconciliation found the record gone; confirmed is empty then, so that a record that comes back is told anew.';

-- One row per reading back of a target: what became of the records that were read.
create table sync.reconciliations (
    reconciliation_id bigint generated always as identity primary key,
    target text not null,
    policy text not null check (policy in ('report', 'heal')),
    seed text not null,
    sample bigint check (sample > 0),
    records_read bigint not null,
    equal bigint not null,
    drifted bigint not null,
    gone bigint not null,
    unresolved bigint not null,
    fields text[] not null,
    calls bigint not null,
    reconciled_at timestamptz not null default clock_timestamp(),
    constraint records_add_up check (records_read = equal + drifted + gone)
);
create index on sync.reconciliations (target, reconciliation_id);
comment on column sync.reconciliations.seed is 'With it and the same ledger the same sample is drawn again.';
comment on column sync.reconciliations.sample is 'Records that were to be read; null for all.';
comment on column sync.reconciliations.drifted is 'Records that hold another value in at least one field.';
comment on column sync.reconciliations.unresolved is
    'Records left out: they have an attempt without an answer, which the next sync settles.';
comment on column sync.reconciliations.fields is 'CRM fields that were compared.';

-- One row per reconciliation, record and field of which the CRM holds another value than it had confirmed.
create table sync.drift (
    reconciliation_id bigint not null references sync.reconciliations,
    target text not null,
    record_id text not null,
    account_id text not null,
    field text not null,
    confirmed text,
    held text,
    done text not null check (done in ('reported', 'healed', 'not_kept', 'gone')),
    primary key (reconciliation_id, record_id, field)
);
create index on sync.drift (target, record_id, field);
comment on column sync.drift.confirmed is 'What the CRM had confirmed; null where it had confirmed that the field is empty.';
comment on column sync.drift.held is 'What it held when it was read; null where nothing.';
comment on column sync.drift.done is
    'reported: listed, nothing else. healed: the ledger forgot the value, so that the next sync sends what is published. '
    'not_kept: as reported; the value was healed before, told again, and is gone again: the CRM does not keep it. '
    'gone: the CRM has no such record any more; the ledger forgot all of its values.';
""")
