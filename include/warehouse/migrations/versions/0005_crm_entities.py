"""More of the CRM: contacts, deals, tickets and survey answers, as versions; and which accounts they touch."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ENTITIES = {
    "contacts": "contact",
    "deals": "deal",
    "tickets": "ticket",
    "feedback_submissions": "survey answer",
}


def upgrade() -> None:
    for table, noun in ENTITIES.items():
        op.execute(f"""
-- One row per version of a CRM {noun}: one for each day on which a pulled property changed.
create table raw_hubspot.{table} (
    load_id uuid not null,
    load_seq bigint not null,
    loaded_at timestamptz not null,
    known_on date not null,
    valid_from timestamptz not null,
    record_id text not null,
    company_record_id text,
    is_archived boolean not null,
    row_hash text not null,
    properties jsonb not null,
    primary key (record_id, load_seq, valid_from)
);
create index on raw_hubspot.{table} (company_record_id);
comment on column raw_hubspot.{table}.company_record_id is
    'The CRM company the {noun} belongs to, its primary association; null where it has none.';
""")
    op.execute("""
-- A load lands a record's whole dated past when it first sees it: several versions.
alter table raw_hubspot.companies drop constraint companies_pkey, add primary key (record_id, load_seq, valid_from);

-- Accounts whose features must be made anew from a day on, because a load brought something dated on that day.
-- `account_key` is the orders' customer_id, or hubspot:<company record id>, which the crosswalk resolves.
create table intermediate.restatement_queue (
    load_id uuid not null,
    account_key text not null,
    from_date date not null,
    claimed_by text,
    primary key (load_id, account_key, from_date)
);
""")
