"""Salesforce: its records as versions, and how far a source has been pulled."""

from alembic import op

revision = "0012"
down_revision = "0008"
branch_labels = None
depends_on = None

ENTITIES = {
    "accounts": "account",
    "contacts": "contact",
    "contact_roles": "role of a contact in an opportunity",
    "opportunities": "opportunity",
    "cases": "case",
}


def upgrade() -> None:
    op.execute("create schema if not exists raw_salesforce")
    for table, noun in ENTITIES.items():
        owner = "account_number" if table == "accounts" else "company_record_id"
        op.execute(f"""
-- One row per version of a Salesforce {noun}: one for each day on which a pulled field changed.
create table raw_salesforce.{table} (
    load_id uuid not null,
    load_seq bigint not null,
    loaded_at timestamptz not null,
    known_on date not null,
    valid_from timestamptz not null,
    record_id text not null,
    {owner} text,
    is_archived boolean not null,
    row_hash text not null,
    properties jsonb not null,
    primary key (record_id, load_seq, valid_from)
);
""")
        if owner == "company_record_id":
            op.execute(f"""
create index on raw_salesforce.{table} (company_record_id);
comment on column raw_salesforce.{table}.company_record_id is
    'The account that the {noun} belongs to; null where it has none.';
""")
    op.execute("""
-- How far a load has pulled its source: everything below `value` of its cursor has landed. `asked` is a fingerprint
-- of the question (system, fields): another question begins anew. One row per load of a source pulled in part.
create table audit.pulls (
    load_id uuid primary key references audit.loads (load_id),
    source text not null,
    entity text not null,
    asked text not null,
    value text not null
);
create index on audit.pulls (source, entity, asked, value);
""")
