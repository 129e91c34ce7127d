"""A version of a CRM company carries the account number that it had, not that of the newest version of its load."""

from alembic import op

revision = "0030"
down_revision = "0028"
branch_labels = None
depends_on = None

# Salesforce's number stands in a field that the sources name: the one that is none of those pulled of every account.
OF_SALESFORCE = """
    select given.value from jsonb_each_text(properties) as given
    where given.key not in (
        'Name', 'Industry', 'BillingCountry', 'OwnerId', 'Website', 'ParentId', 'MasterRecordId', 'createdate')
    order by given.key limit 1"""
NUMBERS = {
    "raw_hubspot.companies": "properties ->> 'account_number'",
    "raw_bottlecrm.accounts": "properties ->> 'account_number'",
    "raw_salesforce.accounts": f"({OF_SALESFORCE})",
}


def upgrade() -> None:
    for table, number in NUMBERS.items():
        op.execute(
            f"update {table} set account_number = {number} "  # noqa: S608 - no value from outside
            f"where account_number is distinct from {number}"
        )
