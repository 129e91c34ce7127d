"""BottleCRM: its records as versions."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

ENTITIES = {
    "accounts": "account",
    "contacts": "contact",
    "opportunities": "opportunity",
    "tickets": "ticket",
}


def upgrade() -> None:
    op.execute("create schema if not exists raw_bottlecrm")
    for table, noun in ENTITIES.items():
        owner = "account_number" if table == "accounts" else "company_record_id"
        op.execute(f"""
-- One row per version of a BottleCRM {noun}: one for each day on which a pulled field was seen to have changed.
create table raw_bottlecrm.{table} (
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
create index on raw_bottlecrm.{table} (company_record_id);
comment on column raw_bottlecrm.{table}.company_record_id is
    'The account that the {noun} belongs to; null where it has none.';
""")
