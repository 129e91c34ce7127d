"""The profile's company built through all layers with scores, and what its lists and usage reports are to hold."""

from collections import defaultdict
from decimal import Decimal

from include.dbt import build
from include.sources.loads import record_absent
from tests.conftest import Warehouse
from tests.dbt import profile_company
from tests.dbt.profile_company import AS_OF, Company

FRESHNESS = (
    "select entity, newest_row_at, rows_landed, lateness_days, is_late, reason, newest_row_date "
    "from candidate.freshness"
)
CAPACITY = 3
"""Rows of the churn list that are due in a day, fewer than are on it."""
Lists = dict[str, set[tuple]]


def build_profile(warehouse: Warehouse, company: Company) -> None:
    """Build the company as of AS_OF through all layers, with scores."""
    profile_company.land(company)
    record_absent("crm", ["tickets"], AS_OF)
    for layer in ("staging", "marts"):
        build(layer, AS_OF, "run-1")
    ordered = {
        account
        for (account,) in warehouse.rows(
            "select account_id from marts.account_features where as_of_date = %s", AS_OF
        )
    }
    profile_company.score("churn", sorted(ordered - set(profile_company.UNDER_CONTRACT)))
    profile_company.score("lapse", sorted(profile_company.DUE))
    profile_company.score("upsell", sorted(ordered)[1:])
    profile_company.score("repurchase", sorted(ordered))
    warehouse.rows("update marts.operating_lists set daily_capacity = %s where list = 'churn risk'", CAPACITY)
    # Of contracts that are not due rules alone speak: these accounts stand on the list by them.
    warehouse.rows(
        "update marts.account_warnings set severity = 'high', warnings = 'no login for 30 days', rules_warning = 1 "
        "where account_id = any(%s)",
        sorted(set(profile_company.UNDER_CONTRACT) - profile_company.DUE),
    )
    build("published", AS_OF, "run-1")


def read_lists(warehouse: Warehouse) -> Lists:
    """Return the rows of each list: account, subject, amount, due date."""
    found: Lists = defaultdict(set)
    for name, *row in warehouse.rows(
        "select list, account_id, subject_id, amount, due_date from candidate.operating_list"
    ):
        found[name].add(tuple(row))
    return found


def used(company: Company, account: str, month: int) -> tuple:
    """Return logins, active days, orders and revenue of an account in a month of 2026, counted from its lines and events."""
    lines = [
        line
        for line in company.lines
        if line.customer_id == account and (line.day.year, line.day.month) == (2026, month)
    ]
    events = [
        event
        for event in company.events
        if event.customer_id == account and (event.day.year, event.day.month) == (2026, month)
    ]
    return (
        sum(event.event_name == "login" for event in events),
        len({event.day for event in events}),
        len({line.order_id for line in lines}),
        sum((line.amount for line in lines), Decimal(0)),
    )
