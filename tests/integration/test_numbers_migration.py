"""Companies landed when every version of a load bore the newest number carry their own one after the migration."""

from datetime import date

import psycopg
import pytest
from psycopg.types.json import Jsonb

from include.warehouse.migrate import migrate
from tests.conftest import PASSWORDS, Warehouse, embedded
from tests.integration.migration_stage import database_at

FIELDS = {"Name": "one", "Industry": "retail", "Website": "one.example", "createdate": "2026-01-01T00:00:00Z"}
"""What is pulled of every Salesforce account beside the number, whose field the sources name."""


@pytest.mark.parametrize(
    ("table", "named", "beside"),
    [
        ("raw_hubspot.companies", "account_number", {"name": "one"}),
        ("raw_bottlecrm.accounts", "account_number", {"name": "one"}),
        ("raw_salesforce.accounts", "Customer_No__c", FIELDS),
    ],
)
def test_each_version_of_a_company_carries_its_own_number(
    warehouse: Warehouse, cluster: embedded.Cluster, table: str, named: str, beside: dict[str, str]
) -> None:
    versions = [(date(2026, 1, 1), None), (date(2026, 2, 1), "C1"), (date(2026, 3, 1), "C2")]
    with database_at("0028", warehouse, cluster) as before:
        with psycopg.connect(before) as connection:
            for valid_from, number in versions:
                connection.execute(
                    f"insert into {table} (load_id, load_seq, loaded_at, known_on, valid_from, record_id, "
                    "account_number, is_archived, row_hash, properties) "
                    "values (gen_random_uuid(), 1, now(), %s, %s, '1', 'C2', false, '', %s)",
                    [valid_from, valid_from, Jsonb({**beside, named: number})],
                )
        migrate(before, PASSWORDS)
        with psycopg.connect(before) as connection:
            held = connection.execute(
                f"select valid_from::date, account_number from {table} order by valid_from"
            ).fetchall()
    assert held == versions
