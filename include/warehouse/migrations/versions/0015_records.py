"""Records from files: the entities of the source contract beside orders and events, as versions."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

OWNERS = {
    "customers": None,
    "accounts": "account_number",
    "contacts": "company_record_id",
    "opportunities": "company_record_id",
    "opportunity_stages": None,
    "tickets": "company_record_id",
    "survey_answers": "company_record_id",
    "contracts": "account_key",
    "referrals": "account_key",
    "campaign_spend": None,
    "products": None,
    "experiment_assignments": "account_key",
    "industries": None,
}
"""Entity -> the column that says whose a record is."""
MEANINGS = {
    "account_number": "The customer of the orders that the account is; null where none is written down.",
    "company_record_id": "The account it belongs to, by its id in the files; null where it names none.",
    "account_key": "The account it belongs to: <system>:<record id> of the CRM, or the customer number of the orders.",
}


def upgrade() -> None:
    for table, owner in OWNERS.items():
        op.execute(f"""
-- One row per version of a record of {table}: since each moment from which the files say something else of it.
create table raw_files.{table} (
    load_id uuid not null,
    load_seq bigint not null,
    loaded_at timestamptz not null,
    known_on date not null,
    valid_from timestamptz not null,
    record_id text not null,
    {f"{owner} text," if owner else ""}
    is_archived boolean not null,
    row_hash text not null,
    properties jsonb not null,
    primary key (record_id, load_seq, valid_from)
);
create index on raw_files.{table} (load_id);
""")
        if owner:
            op.execute(f"""
create index on raw_files.{table} ({owner});
comment on column raw_files.{table}.{owner} is '{MEANINGS[owner]}';
""")
