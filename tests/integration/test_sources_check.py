"""`stratum sources check` says what each configured source has, and one line for each that fails."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from include.cli import app
from include.sandbox.store import Record
from include.settings import get_settings
from tests.fixtures.erp import PASSWORD, Erp, line, running_erp
from tests.integration.salesforce_fixture import ENTITIES, reach, running_salesforce
from tests.integration.sandbox_fixture import TOKEN, Running, account, running_sandbox

FILES = """
company: {name: Test company, timezone: Asia/Shanghai, currency: CNY}
orders:
  file: orders.csv
  columns: {order_id: number, customer_id: buyer, product_id: sku, quantity: qty, unit_price: price,
            currency: "'CNY'", ordered_at: happened}
behavior:
  file: events/*.csv
  timezone: UTC
  columns: {customer_id: account, event_name: action, event_at: happened}
"""
DATABASE = """
company: {name: Test company, timezone: Asia/Shanghai, currency: CNY}
orders:
  connection: erp
  table: sales.order_lines
  cursor: updated_at
  key: [id]
  columns: {order_id: order_no, customer_id: buyer, product_id: sku, quantity: qty, unit_price: price,
            currency: "'CNY'", ordered_at: placed}
crm: {system: hubspot, connection: hub}
sync: sync.yml
"""
SYNC = "hub: {system: hubspot, connection: hub, make_fields: %s, fields: {stratum_tier: tier}}"


@pytest.fixture
def company(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with order and event files, one of the events broken; STRATUM_HOME is below it."""
    monkeypatch.setenv("STRATUM_HOME", str(tmp_path / "home"))
    get_settings.cache_clear()
    (tmp_path / "sync.yml").write_text(SYNC % "true")
    (tmp_path / "events").mkdir()
    (tmp_path / "orders.csv").write_text(
        "number,buyer,sku,qty,price,happened,colour\nS1,A,P,1,2.00,2024-03-01 09:00:00,red\nS2,A,P,1,2.00,tomorrow,red\nS3\n"
    )
    (tmp_path / "events" / "1.csv").write_text("account,action,happened\nA,login,2024-03-01 22:00:00\n")
    (tmp_path / "events" / "2.csv").write_text("account,action\nA,login\n")
    yield tmp_path
    get_settings.cache_clear()


def check(folder: Path, text: str) -> tuple[int, list[dict[str, Any]]]:
    path = folder / "sources.yml"
    path.write_text(text)
    done = CliRunner().invoke(app, ["sources", "check", "--json", "--sources", str(path)])
    assert done.stdout, done.exception
    return done.exit_code, json.loads(done.stdout)


def test_files_say_their_rows_their_newest_and_what_is_not_mapped(company: Path) -> None:
    (company / "events" / "2.csv").unlink()
    code, (orders, events) = check(company, FILES)
    assert code == 0
    assert (orders["source"], orders["entity"], orders["place"]) == (
        "orders",
        "order_lines",
        str(company / "orders.csv"),
    )
    assert (orders["rows"], orders["newest"], orders["not_mapped"]) == (3, "2024-03-01 09:00:00", ["colour"])
    assert orders["note"] == "1 rows cannot be parsed"
    assert (events["rows"], events["newest"], events["not_mapped"]) == (1, "2024-03-02 06:00:00", [])


def test_each_fault_is_a_line_beside_what_is_sound_and_the_exit_code_1(company: Path) -> None:
    (company / "orders.csv").unlink()
    code, (orders, first, second) = check(company, FILES)
    assert (code, first["is_reachable"]) == (1, True)
    assert "There is no file" in orders["fault"]
    assert (
        "behavior.columns.event_at: the expression 'happened' names the column 'happened'" in second["fault"]
    )
    done = CliRunner().invoke(app, ["sources", "check", "--sources", str(company / "sources.yml")])
    assert done.exit_code == 1
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["FAIL", "orders.order_lines"],
        ["OK", "behavior.events"],
        ["FAIL", "behavior.events"],
    ]


RECORDS = """
company: {name: Test company, timezone: Asia/Shanghai, currency: CNY}
crm: {system: files}
records:
  accounts: {file: accounts.csv, columns: {account_id: id, created_at: made, modified_at: changed}}
  products: {file: products.csv, columns: {product_id: sku}}
  tickets: {file: tickets.csv, columns: {ticket_id: id, opened_at: made}}
"""


def test_records_of_files_say_their_rows_their_newest_and_what_is_not_mapped(company: Path) -> None:
    (company / "accounts.csv").write_text(
        "id,made,changed,colour\n1,2026-01-01,2026-03-01,red\n2,2026-02-01,,red\n"
    )
    (company / "products.csv").write_text("sku\nP1\n")
    code, (accounts, tickets, products) = check(company, RECORDS)
    assert (code, tickets["entity"]) == (1, "tickets")
    assert "There is no file" in tickets["fault"]
    assert (accounts["source"], accounts["rows"], accounts["newest"], accounts["not_mapped"]) == (
        "records",
        2,
        "2026-03-01 00:00:00",
        ["colour"],
    )
    assert (products["rows"], products["newest"], products["not_mapped"]) == (1, None, [])


@pytest.fixture
def erp(cluster) -> Iterator[Erp]:
    with running_erp(cluster) as running:
        yield running


@pytest.fixture
def hubspot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    created = datetime(2025, 6, 1, 1, tzinfo=UTC)
    ticket = Record("tickets", "A0001", created, (("subject", created, "Late"),))
    with running_sandbox(tmp_path / "sandbox.db", [account(1), account(2)], records=(ticket,)) as running:
        monkeypatch.setenv(
            "AIRFLOW_CONN_HUB", json.dumps({"conn_type": "http", "host": running.url, "password": TOKEN})
        )
        yield running


def test_a_database_and_a_crm_say_what_they_have(company: Path, erp: Erp, hubspot: Running) -> None:
    erp.add(line(1, "2024-03-01 09:00"))
    erp.add(line(2, "2024-03-01 09:00", updated="2024-03-05 10:00"))
    code, found = check(company, DATABASE)
    assert code == 0, found
    seen = {(each["source"], each["entity"]): each for each in found}
    orders = seen["orders", "order_lines"]
    assert (orders["rows"], orders["newest"], orders["not_mapped"]) == (2, "2024-03-05 10:00:00", ["photo"])
    assert orders["place"] == "sales.order_lines at erp"
    assert (seen["crm", "companies"]["rows"], seen["crm", "companies"]["newest"]) == (
        2,
        "2025-03-04 13:06:07",
    )
    assert (seen["crm", "tickets"]["rows"], seen["crm", "tickets"]["newest"]) == (1, "2025-06-01 09:00:00")
    assert (seen["crm", "deals"]["rows"], seen["crm", "deals"]["newest"]) == (0, None)
    assert seen["sync", "companies"]["note"] == "1 of 1 fields are made by the next sync"
    said = CliRunner().invoke(app, ["sources", "check", "--sources", str(company / "sources.yml")]).stdout
    assert "OK    sync.companies         hub: 1 of 1 fields are made by the next sync" in said
    assert hubspot.writes == 0


def test_what_cannot_be_reached_is_told_without_a_password(company: Path, erp: Erp, hubspot: Running) -> None:
    hubspot.fault(missing_scopes=["deals"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_ERP", erp.reader_url.rpartition("/")[0] + "/no_such_database")
        (company / "sync.yml").write_text(SYNC % "false")
        code, found = check(company, DATABASE)
    faults = {(each["source"], each["entity"]): each["fault"] for each in found if each["fault"]}
    assert code == 1
    assert set(faults) == {("orders", "order_lines"), ("crm", "deals"), ("sync", "companies")}
    assert "does not let Stratum in" in faults["orders", "order_lines"]
    assert "crm.objects" not in faults["orders", "order_lines"]
    assert "HTTP 403" in faults["crm", "deals"]
    assert "has no field stratum_tier: run `stratum sync setup`" in faults["sync", "companies"]
    assert not any(secret in str(found) for secret in (PASSWORD, "p%40ss", TOKEN))


def test_the_look_needs_no_warehouse_and_an_unknown_connection_is_named(company: Path) -> None:
    code, found = check(company, DATABASE)
    assert code == 1
    assert "No connection 'erp'" in found[0]["fault"]
    assert all("No connection 'hub'" in each["fault"] for each in found[1:])
    assert not (company / "home" / "postgres").exists()


def test_a_salesforce_is_looked_at_object_by_object_and_a_wrong_secret_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRATUM_HOME", str(tmp_path / "home"))
    get_settings.cache_clear()
    text = "company: {name: Test company, timezone: Asia/Shanghai, currency: CNY}\ncrm: {system: salesforce}"
    with running_salesforce(tmp_path / "state") as crm:
        reach(monkeypatch, crm)
        code, seen = check(tmp_path, text)
        assert code == 0
        assert [each["entity"] for each in seen] == list(ENTITIES)
        assert {each["rows"] for each in seen} == {0}
        org = crm.sandbox.store
        for day in (1, 3, 2):
            org.insert("Account", datetime(2026, 3, day, 20, tzinfo=UTC), Name=f"Account {day}")
        code, (accounts, *_) = check(tmp_path, text)
        assert (accounts["rows"], accounts["newest"]) == (3, "2026-03-04 04:00:00")
        reach(monkeypatch, crm, secret="wrong")
        code, seen = check(tmp_path, text)
    assert code == 1
    assert all("\n" not in each["fault"] and "wrong" not in each["fault"] for each in seen)
    get_settings.cache_clear()
