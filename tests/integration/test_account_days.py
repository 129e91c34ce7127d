"""The days kept up incrementally, with and without a customer, equal a full rebuild and an independent computation."""

import random
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from include.dbt import build
from include.errors import StratumError
from tests.conftest import Warehouse
from tests.dbt.raw_rows import Event, Events, Line, Orders, at

FIRST_DAY = date(2026, 1, 1)
AS_OF = date(2026, 2, 28)
MEASURES = (
    "order_lines, sale_lines, return_lines, non_product_lines, "
    "units, gross_sales, returns_amount, net_revenue, non_product_amount"
)
COLUMNS = f"account_id, order_date, country, orders, {MEASURES}"


def _table(warehouse: Warehouse) -> list[tuple]:
    return warehouse.rows(f"select {COLUMNS} from intermediate.int_account_days order by 1, 2")


def _unattributed(warehouse: Warehouse) -> list[tuple]:
    return warehouse.rows(f"select order_date, {MEASURES} from intermediate.int_unattributed_days order by 1")


def _queue(warehouse: Warehouse) -> list[tuple]:
    return warehouse.rows(
        "select customer_id, order_date, claimed_by from intermediate.account_day_queue order by 1, 2"
    )


def _measures(lines: list[Line]) -> tuple:
    """The MEASURES of the lines, computed in Python."""
    of_type = {
        kind: [line for line in lines if line.line_type == kind] for kind in ("sale", "return", "non_product")
    }
    amount = {kind: sum((line.amount for line in found), Decimal(0)) for kind, found in of_type.items()}
    return (
        len(lines),
        *(len(found) for found in of_type.values()),
        Decimal(sum(line.quantity for line in lines if line.line_type != "non_product")),
        amount["sale"],
        -amount["return"],
        amount["sale"] + amount["return"],
        amount["non_product"],
    )


def _computed_unattributed(orders: Orders) -> list[tuple]:
    """The days of the current lines without a customer, computed in Python from the lines themselves."""
    days: dict[date, list[Line]] = defaultdict(list)
    for line in orders.current.values():
        if line.customer_id is None:
            days[line.day].append(line)
    return [(day, *_measures(lines)) for day, lines in sorted(days.items())]


def _computed(orders: Orders) -> list[tuple]:
    """The account-days of the current lines, computed in Python from the lines themselves."""
    days: dict[tuple[str, date], list[Line]] = defaultdict(list)
    first_sale: dict[tuple[str, str], date] = {}
    for line in orders.current.values():
        if line.customer_id is None:
            continue
        days[line.customer_id, line.day].append(line)
        if line.line_type == "sale":
            order = (line.customer_id, line.order_id)
            first_sale[order] = min(first_sale.get(order, line.day), line.day)
    rows = []
    for (account, day), lines in sorted(days.items()):
        newest = max((line for line in lines if line.country), key=lambda line: line.ordered_at, default=None)
        rows.append(
            (
                account,
                day,
                newest.country if newest else None,
                sum(1 for order, first in first_sale.items() if order[0] == account and first == day),
                *_measures(lines),
            )
        )
    return rows


def _random_line(chance: random.Random, row_key: str) -> Line:
    kind = chance.choices(["sale", "return", "non_product"], [7, 2, 1])[0]
    sign = -1 if kind == "return" else 1
    # The second of each line is its own, so that the newest line of a day is never in doubt.
    ordered_at = at(FIRST_DAY + timedelta(days=chance.randrange(12)), chance.randrange(24)) + timedelta(
        seconds=int(row_key)
    )
    return Line(
        row_key=row_key,
        order_id=f"o{chance.randrange(15)}",
        customer_id=chance.choice(["c1", "c2", "c3", "c4", None]),
        ordered_at=ordered_at,
        amount=sign * Decimal(chance.randrange(1, 10_000)) / 100,
        quantity=sign * chance.randrange(1, 9),
        line_type=kind,
        country=chance.choice(["CN", "DE", None]),
    )


@pytest.mark.extended
@pytest.mark.parametrize("seed", [1, 2])
def test_any_sequence_of_new_late_and_corrected_lines_equals_a_full_rebuild(
    warehouse: Warehouse, seed: int
) -> None:
    chance = random.Random(seed)
    orders = Orders()
    for round_number in range(5):
        for _ in range(chance.randrange(1, 4)):  # several loads may wait for one build
            known = len(orders.current)
            changed: dict[str, Line] = {}
            for row_key in chance.sample(sorted(orders.current), min(known, 8)):
                other = _random_line(chance, row_key)
                fields = chance.sample(["order_id", "customer_id", "ordered_at", "amount", "country"], 2)
                changed[row_key] = replace(
                    orders.current[row_key], **{field: getattr(other, field) for field in fields}
                )
                if chance.random() < 0.3:
                    changed[row_key] = other
            new = [_random_line(chance, str(known + number)) for number in range(chance.randrange(3, 25))]
            orders.land(AS_OF, [*changed.values(), *new])
        build("staging", AS_OF, f"run-{round_number}")
        assert _table(warehouse) == _computed(orders), f"round {round_number}"
        assert _unattributed(warehouse) == _computed_unattributed(orders), f"round {round_number}"
        assert warehouse.value("select count(*) from intermediate.account_day_queue") == 0
    incremental = _table(warehouse), _unattributed(warehouse)
    nodes = {node.node_id for node in build("staging", AS_OF, "run-full", full_refresh=True)}
    assert (_table(warehouse), _unattributed(warehouse)) == incremental
    assert "test.stratum.assert_account_days_equal_order_lines" in nodes


def test_a_build_replaces_only_the_account_days_that_loads_touched(warehouse: Warehouse) -> None:
    orders = Orders()
    orders.land(AS_OF, [Line("1", "o1", "c1", at(FIRST_DAY)), Line("2", "o2", "c2", at(FIRST_DAY))])
    build("staging", AS_OF, "run-1")
    before = dict(warehouse.rows("select account_id, xmin::text from intermediate.int_account_days"))
    orders.land(AS_OF, [Line("3", "o3", "c2", at(FIRST_DAY))])
    build("staging", AS_OF, "run-2")
    after = dict(warehouse.rows("select account_id, xmin::text from intermediate.int_account_days"))
    assert after["c1"] == before["c1"]
    assert after["c2"] != before["c2"]


@pytest.mark.extended
def test_a_build_replaces_only_the_unattributed_days_that_loads_touched(warehouse: Warehouse) -> None:
    orders = Orders()
    days = [FIRST_DAY + timedelta(days=number) for number in range(3)]
    orders.land(AS_OF, [Line(str(number), f"o{number}", None, at(day)) for number, day in enumerate(days)])
    build("staging", AS_OF, "run-1")
    versions = "select order_date, xmin::text from intermediate.int_unattributed_days"
    before = dict(warehouse.rows(versions))
    # A line of an account on the same day is none of this table's; the last instant of the day before is not, either.
    orders.land(AS_OF, [Line("3", "o3", None, at(days[1], 0)), Line("4", "o4", "c1", at(days[2], 0))])
    results = {result.node_id: result for result in build("staging", AS_OF, "run-2")}
    after = dict(warehouse.rows(versions))
    assert [day for day in days if after[day] != before[day]] == [days[1]]
    assert results["model.stratum.int_unattributed_days"].rows_affected == 1
    assert _unattributed(warehouse) == _computed_unattributed(orders)


@pytest.mark.extended
def test_an_order_over_two_days_counts_on_its_first_day_even_when_that_day_leaves_it(
    warehouse: Warehouse,
) -> None:
    orders = Orders()
    second_day, third_day = FIRST_DAY + timedelta(days=1), FIRST_DAY + timedelta(days=2)
    orders.land(
        AS_OF, [Line("1", "o1", "c1", at(FIRST_DAY, 23, 59)), Line("2", "o1", "c1", at(second_day, 0, 1))]
    )
    build("staging", AS_OF, "run-1")
    counted = "select order_date, orders from intermediate.int_account_days order by 1"
    assert warehouse.rows(counted) == [(FIRST_DAY, 1), (second_day, 0)]
    # Only the first and the third day are queued; the order now counts on the second.
    orders.correct(AS_OF, "1", ordered_at=at(third_day))
    build("staging", AS_OF, "run-2")
    assert warehouse.rows(counted) == [(second_day, 1), (third_day, 0)]


@pytest.mark.extended
def test_a_failed_build_leaves_the_table_and_the_queue_as_they_were(warehouse: Warehouse) -> None:
    orders = Orders()
    orders.land(AS_OF, [Line("1", "o1", "c1", at(FIRST_DAY))])
    build("staging", AS_OF, "run-1")
    before = _table(warehouse)
    orders.land(AS_OF, [Line("2", "o2", "c1", at(FIRST_DAY), amount=Decimal("666.00"))])
    warehouse.rows(
        "alter table intermediate.int_account_days add constraint refuse check (net_revenue < 600) not valid"
    )
    with pytest.raises(StratumError, match=r"int_account_days \(error\): .*refuse"):
        build("staging", AS_OF, "run-2")
    assert _table(warehouse) == before
    assert _queue(warehouse) == [("c1", FIRST_DAY, None)]
    recorded = (
        "select status from audit.dbt_nodes where run_id = 'run-2' and node_id like '%int_account_days'"
    )
    assert warehouse.rows(recorded) == [("error",)]
    warehouse.rows("alter table intermediate.int_account_days drop constraint refuse")
    build("staging", AS_OF, "run-3")
    assert _table(warehouse) == _computed(orders)


@pytest.mark.extended
@pytest.mark.parametrize("failing", ["int_account_days", "int_unattributed_days"])
def test_a_failed_table_keeps_its_own_part_of_the_queue_and_the_other_takes_only_its_own(
    warehouse: Warehouse, failing: str
) -> None:
    orders = Orders()
    orders.land(AS_OF, [Line("1", "o1", "c1", at(FIRST_DAY)), Line("2", "o2", None, at(FIRST_DAY))])
    build("staging", AS_OF, "run-1")
    before = {"int_account_days": _table(warehouse), "int_unattributed_days": _unattributed(warehouse)}
    dear = Decimal("666.00")
    orders.land(
        AS_OF, [Line("3", "o3", "c1", at(FIRST_DAY), dear), Line("4", "o4", None, at(FIRST_DAY), dear)]
    )
    warehouse.rows(
        f"alter table intermediate.{failing} add constraint refuse check (net_revenue < 600) not valid"
    )
    with pytest.raises(StratumError, match=rf"{failing} \(error\): .*refuse"):
        build("staging", AS_OF, "run-2")
    if failing == "int_account_days":
        assert _table(warehouse) == before[failing]
        assert _unattributed(warehouse) == _computed_unattributed(orders)
        assert _queue(warehouse) == [("c1", FIRST_DAY, None)]
    else:
        assert _unattributed(warehouse) == before[failing]
        assert _table(warehouse) == _computed(orders)
        assert _queue(warehouse) == [("", FIRST_DAY, None)]
    warehouse.rows(f"alter table intermediate.{failing} drop constraint refuse")
    build("staging", AS_OF, "run-3")
    assert (_table(warehouse), _unattributed(warehouse)) == (
        _computed(orders),
        _computed_unattributed(orders),
    )
    assert _queue(warehouse) == []


@pytest.mark.extended
def test_a_changed_definition_rebuilds_the_table_and_an_unchanged_one_does_not(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = Orders()
    orders.land(AS_OF, [Line("1", "o1", "c1", at(FIRST_DAY))])
    build("staging", AS_OF, "run-1")
    # A wrong amount that no queue tells of stays until the definition changes.
    warehouse.rows("update intermediate.int_account_days set net_revenue = 1, gross_sales = 1")
    build("staging", AS_OF, "run-2")
    assert warehouse.value("select net_revenue from intermediate.int_account_days") == 1
    monkeypatch.setattr("include.dbt.definition", lambda: "another definition")
    build("staging", AS_OF, "run-3")
    assert warehouse.value("select net_revenue from intermediate.int_account_days") == 10


@pytest.mark.extended
@pytest.mark.parametrize("other", ["another definition", None])
def test_the_unattributed_days_alone_of_another_definition_are_rebuilt(
    warehouse: Warehouse, other: str | None
) -> None:
    """As after a full rebuild in which this table alone failed; None is a table from before it was kept up."""
    orders = Orders()
    orders.land(AS_OF, [Line("1", "o1", None, at(FIRST_DAY))])
    build("staging", AS_OF, "run-1")
    warehouse.rows("update intermediate.int_unattributed_days set net_revenue = 1")
    build("staging", AS_OF, "run-2")
    assert warehouse.value("select net_revenue from intermediate.int_unattributed_days") == 1
    comment = f"'{other}'" if other else "null"
    warehouse.rows(f"comment on table intermediate.int_unattributed_days is {comment}")
    build("staging", AS_OF, "run-3")
    assert warehouse.value("select net_revenue from intermediate.int_unattributed_days") == 10
    warehouse.rows("update intermediate.int_unattributed_days set net_revenue = 1")
    build("staging", AS_OF, "run-4")
    assert warehouse.value("select net_revenue from intermediate.int_unattributed_days") == 1


@pytest.mark.extended
def test_a_day_whose_first_hour_comes_twice_is_whole_in_both_tables(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the Azores the clock goes from 01:00 back to 00:00 on 2025-10-26, one hour UTC: midnight comes twice."""
    monkeypatch.setattr("tests.dbt.raw_rows.TIMEZONE", "Atlantic/Azores")
    hours = [datetime(2025, 10, 25, 23, 30, tzinfo=UTC) + timedelta(hours=number) for number in range(4)]
    orders = Orders()
    orders.land(AS_OF, [Line("0", "o0", None, at(FIRST_DAY)), Line("1", "o0", "c0", at(FIRST_DAY))])
    build("staging", AS_OF, "run-1")
    lines = [
        Line(f"{customer}{hour}", f"o-{hour}", customer, hour) for hour in hours for customer in ("c1", None)
    ]
    for number, line in enumerate(lines):
        orders.land(AS_OF, [line])
        build("staging", AS_OF, f"run-{number + 2}")
        assert _table(warehouse) == _computed(orders)
        assert _unattributed(warehouse) == _computed_unattributed(orders)
    assert [row[:2] for row in _unattributed(warehouse)] == [
        (date(2025, 10, 25), 1),
        (date(2025, 10, 26), 3),
        (FIRST_DAY, 1),
    ]


@pytest.mark.extended
def test_lines_without_a_rate_fail_the_build_and_name_the_test(warehouse: Warehouse) -> None:
    Orders().land(AS_OF, [Line("1", "o1", "c1", at(FIRST_DAY), currency="EUR")])
    with pytest.raises(StratumError, match="assert_every_order_line_has_a_price"):
        build("staging", AS_OF, "run-1")


@pytest.mark.extended
def test_a_line_the_loads_did_not_count_fails_the_build(warehouse: Warehouse) -> None:
    Orders().land(AS_OF, [Line("1", "o1", "c1", at(FIRST_DAY))])
    build("staging", AS_OF, "run-1")
    warehouse.rows("delete from intermediate.int_account_days")
    with pytest.raises(StratumError, match="assert_days_hold_every_loaded_line"):
        build("staging", AS_OF, "run-2")


@pytest.mark.extended
def test_lines_without_a_customer_are_counted_apart(warehouse: Warehouse) -> None:
    orders = Orders()
    orders.land(AS_OF, [Line("1", "o1", None, at(FIRST_DAY)), Line("2", "o2", "c1", at(FIRST_DAY))])
    build("staging", AS_OF, "run-1")
    counted: list[Any] = warehouse.rows(
        "select order_date, order_lines, net_revenue from intermediate.int_unattributed_days"
    )
    assert counted == [(FIRST_DAY, 1, Decimal("10.00"))]
    orders.correct(AS_OF, "1", customer_id="c9")
    build("staging", AS_OF, "run-2")
    assert warehouse.rows("select * from intermediate.int_unattributed_days") == []
    assert _table(warehouse) == _computed(orders)
    orders.correct(AS_OF, "1", customer_id=None, ordered_at=at(FIRST_DAY + timedelta(days=1)))
    build("staging", AS_OF, "run-3")
    assert [row[:2] for row in _unattributed(warehouse)] == [(FIRST_DAY + timedelta(days=1), 1)]
    assert [row[0] for row in _table(warehouse)] == ["c1"]
    assert _queue(warehouse) == []


def test_a_build_before_any_load_says_so_in_one_line(warehouse: Warehouse) -> None:
    with pytest.raises(StratumError, match="no company yet"):
        build("staging", AS_OF, "run-1")


@pytest.mark.extended
def test_usage_days_follow_new_late_and_corrected_events_like_order_days(warehouse: Warehouse) -> None:
    Orders().land(AS_OF, [Line("1", "o1", "c1", at(FIRST_DAY))])
    events = Events()
    second_day = FIRST_DAY + timedelta(days=1)
    events.land(
        AS_OF,
        [
            Event("1", "c1", at(FIRST_DAY, 0)),
            Event("2", "c1", at(FIRST_DAY, 23, 59), "feature_use", "quick_order", "s2"),
            Event("3", "c2", at(FIRST_DAY)),
            Event("4", None, at(FIRST_DAY)),
        ],
    )
    build("staging", AS_OF, "run-1")
    usage = (
        "select account_id, usage_date, events, logins, sessions, feature_uses, core_feature_uses "
        "from intermediate.int_usage_days order by 1, 2"
    )
    versions = "select account_id, xmin::text from intermediate.int_usage_days where usage_date = %s"
    assert warehouse.rows(usage) == [("c1", FIRST_DAY, 2, 1, 2, 1, 1), ("c2", FIRST_DAY, 1, 1, 1, 0, 0)]
    before = dict(warehouse.rows(versions, FIRST_DAY))
    events.correct(AS_OF, "2", at=at(second_day), feature="price_list")
    events.land(AS_OF, [Event("5", "c1", at(FIRST_DAY))])  # late
    build("staging", AS_OF, "run-2")
    kept_up = warehouse.rows(usage)
    assert kept_up == [
        ("c1", FIRST_DAY, 2, 2, 1, 0, 0),
        ("c1", second_day, 1, 0, 1, 1, 0),
        ("c2", FIRST_DAY, 1, 1, 1, 0, 0),
    ]
    after = dict(warehouse.rows(versions, FIRST_DAY))
    assert after["c1"] != before["c1"]
    assert after["c2"] == before["c2"]
    assert warehouse.value("select count(*) from intermediate.usage_day_queue") == 0
    touched = "select account_key, min(from_date) from intermediate.restatement_queue group by 1 order by 1"
    assert warehouse.rows(touched) == [("c1", FIRST_DAY), ("c2", FIRST_DAY)]
    build("staging", AS_OF, "run-full", full_refresh=True)
    assert warehouse.rows(usage) == kept_up
