"""The simulated company is the same bytes on every machine, and looks like a company."""

import csv
import hashlib
from collections import defaultdict
from datetime import date, datetime
from pathlib import Path

from include.simulate import LAST_DAY, accounts, write_company
from include.simulate.company import UNKNOWN_TO_CRM, orders_csv

ORDERS_SHA256 = "2e5aa84e83710a802cd7c3ffdf814a2d4e7e9cc48e89ffa08cfad70b25abdda6"
ACCOUNTS_SHA256 = "7a730e2f6d51ec5dec115e173eb1ee649d20011cab77a830569fe18aa19811d7"


def readable_rows() -> list[dict[str, str]]:
    rows = csv.DictReader(orders_csv().splitlines())
    return [row for row in rows if row["country"] and row["ordered_at"][2] != "."]


def test_the_bytes_are_pinned() -> None:
    assert hashlib.sha256(orders_csv().encode()).hexdigest() == ORDERS_SHA256
    assert hashlib.sha256(repr(accounts()).encode()).hexdigest() == ACCOUNTS_SHA256


def test_writing_twice_leaves_the_file_alone_and_heals_a_changed_one(tmp_path: Path) -> None:
    write_company(tmp_path / "simulated")
    path = tmp_path / "simulated" / "orders.csv"
    written = path.stat().st_mtime_ns
    write_company(tmp_path / "simulated")
    assert path.stat().st_mtime_ns == written
    path.write_text("cut short")
    write_company(tmp_path / "simulated")
    assert path.read_bytes() == orders_csv().encode()
    assert sorted(item.name for item in path.parent.iterdir()) == ["events", "orders.csv"]


def test_about_600_customers_order_over_two_years_and_about_15_percent_are_dormant() -> None:
    last: dict[str, date] = defaultdict(lambda: date.min)
    for row in readable_rows():
        if row["customer_no"] and row["order_no"].startswith("S"):
            day = datetime.fromisoformat(row["ordered_at"]).date()
            last[row["customer_no"]] = max(day, last[row["customer_no"]])
    assert 580 <= len(last) <= 600
    assert max(last.values()) <= LAST_DAY
    dormant = sum((LAST_DAY - day).days > 365 for day in last.values()) / len(last)
    assert 0.12 <= dormant <= 0.20
    assert 15_000 <= len(readable_rows()) <= 25_000


def test_spend_is_heavy_tailed() -> None:
    spend: dict[str, float] = defaultdict(float)
    for row in readable_rows():
        if row["customer_no"] and row["quantity"].lstrip("-").isdigit():
            spend[row["customer_no"]] += float(row["unit_price"]) * int(row["quantity"])
    ordered = sorted(spend.values(), reverse=True)
    assert sum(ordered[: len(ordered) // 5]) > 0.5 * sum(ordered)


def test_the_crm_lacks_some_customers_and_knows_some_that_never_ordered() -> None:
    numbers = [account["account_number"] for account in accounts()]
    ordering = {row["customer_no"] for row in readable_rows() if row["customer_no"]}
    assert len(numbers) == len(set(numbers))
    assert ordering - set(numbers) == {f"C{index:04d}" for index in UNKNOWN_TO_CRM}
    assert len(set(numbers) - ordering) >= 14
    assert all(account["name"].startswith("Account ") for account in accounts())


def test_an_account_stands_in_the_crm_before_its_first_order() -> None:
    first: dict[str, str] = {}
    for row in readable_rows():
        first.setdefault(row["customer_no"], row["ordered_at"])
    for account in accounts():
        if account["account_number"] in first:
            assert account["created_at"][:10] < first[account["account_number"]][:10]
