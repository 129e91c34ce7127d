"""What customers ordered by category, kept up with the account-days: equal to a full rebuild, whatever fails between."""

import random
from collections import defaultdict
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from include.dbt import build, invoke
from include.errors import StratumError
from include.sources.retract import retract
from tests.conftest import Warehouse
from tests.dbt.raw_rows import CURRENCY, TIMEZONE, Line, Orders, at
from tests.integration.record_stage import Records

FIRST_DAY = date(2026, 1, 1)
AS_OF = date(2026, 2, 28)
DAYS = (
    "select account_id, order_date, product_category, orders, net_revenue "
    "from intermediate.int_category_days order by 1, 2, 3"
)
CATEGORIES = (
    "select account_id, product_category, first_line_date, first_order_date, last_order_date "
    "from intermediate.int_account_categories order by 1, 2"
)
QUEUE = "select customer_id, order_date, claimed_by from intermediate.account_day_queue order by 1, 2"


def _computed(orders: Orders) -> tuple[list[tuple], list[tuple]]:
    """The rows of DAYS and CATEGORIES, computed in Python from the current lines."""
    revenue: dict[tuple[str, date, str], Decimal] = defaultdict(Decimal)
    first_sale: dict[tuple[str, str, str], date] = {}
    for line in orders.current.values():
        if line.customer_id is None or line.product_category is None or line.line_type == "non_product":
            continue
        revenue[line.customer_id, line.day, line.product_category] += line.amount
        if line.line_type == "sale":
            order = (line.customer_id, line.order_id, line.product_category)
            first_sale[order] = min(first_sale.get(order, line.day), line.day)
    counted: dict[tuple[str, date, str], int] = defaultdict(int)
    for (account, _, category), day in first_sale.items():
        counted[account, day, category] += 1
    days = [(*key, counted[key], amount) for key, amount in sorted(revenue.items())]
    found: dict[tuple[str, str], list[tuple[date, int]]] = defaultdict(list)
    for account, day, category, count, _ in days:
        found[account, category].append((day, count))
    categories = []
    for key, dated in sorted(found.items()):
        ordered = [day for day, count in dated if count]
        categories.append((*key, dated[0][0], min(ordered, default=None), max(ordered, default=None)))
    return days, categories


def _random_line(chance: random.Random, row_key: str) -> Line:
    kind = chance.choices(["sale", "return", "non_product"], [7, 2, 1])[0]
    sign = -1 if kind == "return" else 1
    return Line(
        row_key=row_key,
        order_id=f"o{chance.randrange(15)}",
        customer_id=chance.choice(["c1", "c2", "c3", None]),
        ordered_at=at(FIRST_DAY + timedelta(days=chance.randrange(12)), chance.randrange(24)),
        amount=sign * Decimal(chance.randrange(1, 10_000)) / 100,
        quantity=sign,
        line_type=kind,
        product_category=chance.choice(["belts", "pumps", "tools", None]),
    )


@pytest.mark.extended
def test_new_late_and_corrected_lines_equal_a_full_rebuild(warehouse: Warehouse) -> None:
    chance = random.Random(3)
    orders = Orders()
    for round_number in range(3):
        known = len(orders.current)
        new = [_random_line(chance, str(known + number)) for number in range(20)]
        changed = [
            replace(
                _random_line(chance, row_key),
                **({"order_id": orders.current[row_key].order_id} if chance.random() < 0.5 else {}),
            )
            for row_key in chance.sample(sorted(orders.current), min(known, 8))
        ]
        orders.land(AS_OF, [*changed, *new])
        build("staging", AS_OF, f"run-{round_number}")
        assert (warehouse.rows(DAYS), warehouse.rows(CATEGORIES)) == _computed(orders), (
            f"round {round_number}"
        )
        assert warehouse.rows(QUEUE) == []
    incremental = warehouse.rows(DAYS), warehouse.rows(CATEGORIES)
    build("staging", AS_OF, "run-full", full_refresh=True)
    assert (warehouse.rows(DAYS), warehouse.rows(CATEGORIES)) == incremental
    assert any(orders == 0 for *_, orders, _ in incremental[0])


def _account_days(warehouse: Warehouse) -> list[tuple]:
    return warehouse.rows(
        "select account_id, order_date, orders from intermediate.int_account_days order by 1, 2"
    )


@pytest.mark.extended
def test_a_build_that_fails_between_the_two_and_a_load_in_between_leave_both_right(
    warehouse: Warehouse,
) -> None:
    orders = Orders()
    day, next_day = FIRST_DAY, FIRST_DAY + timedelta(days=1)
    orders.land(
        AS_OF, [Line("1", "o1", "c1", at(day), product_category="pumps"), Line("2", "o2", None, at(day))]
    )
    build("staging", AS_OF, "run-1")
    orders.land(AS_OF, [Line("3", "o3", "c1", at(day), Decimal(666), product_category="pumps")])
    warehouse.rows(
        "alter table intermediate.int_category_days add constraint refuse check (net_revenue < 600) not valid"
    )
    with pytest.raises(StratumError, match=r"int_category_days \(error\): .*refuse"):
        build("staging", AS_OF, "run-2")
    assert _account_days(warehouse) == [("c1", day, 2)]
    assert warehouse.rows(DAYS) == [("c1", day, "pumps", 1, Decimal("10.00"))]
    assert warehouse.rows(QUEUE) == [("c1", day, "run-2")]
    # What lands now is claimed by nobody; the failed claim is the next build's like all others.
    orders.land(
        AS_OF,
        [Line("4", "o4", "c1", at(next_day), product_category="belts"), Line("5", "o5", None, at(next_day))],
    )
    warehouse.rows("alter table intermediate.int_category_days drop constraint refuse")
    build("staging", AS_OF, "run-2")
    assert _account_days(warehouse) == [("c1", day, 2), ("c1", next_day, 1)]
    assert (warehouse.rows(DAYS), warehouse.rows(CATEGORIES)) == _computed(orders)
    assert warehouse.value("select sum(order_lines) from intermediate.int_unattributed_days") == 2
    assert warehouse.rows(QUEUE) == []


@pytest.mark.extended
def test_a_load_that_lands_between_the_two_waits_for_the_next_build_of_both(warehouse: Warehouse) -> None:
    orders = Orders()
    day, next_day = FIRST_DAY, FIRST_DAY + timedelta(days=1)
    orders.land(AS_OF, [Line("1", "o1", "c1", at(day), product_category="pumps")])
    build("staging", AS_OF, "run-1")
    orders.land(AS_OF, [Line("2", "o2", "c1", at(day), product_category="belts")])
    invoke(["run", "--select", "int_account_days"], AS_OF, "run-2")
    orders.land(
        AS_OF,
        [Line("3", "o3", None, at(next_day)), Line("4", "o4", "c1", at(next_day), product_category="tools")],
    )
    # Those without a customer are another model's, at any moment.
    invoke(["run", "--select", "int_unattributed_days"], AS_OF, "run-2")
    assert warehouse.rows(QUEUE) == [("c1", day, "run-2"), ("c1", next_day, None)]
    invoke(["run", "--select", "int_category_days", "int_account_categories"], AS_OF, "run-2")
    assert [row[:3] for row in warehouse.rows(DAYS)] == [("c1", day, "belts"), ("c1", day, "pumps")]
    assert warehouse.rows(QUEUE) == [("c1", next_day, None)]
    build("staging", AS_OF, "run-3")
    assert (warehouse.rows(DAYS), warehouse.rows(CATEGORIES)) == _computed(orders)
    assert _account_days(warehouse) == [("c1", day, 2), ("c1", next_day, 1)]


@pytest.mark.extended
def test_a_missing_table_is_made_with_the_others_anew(warehouse: Warehouse) -> None:
    orders = Orders()
    orders.land(AS_OF, [Line("1", "o1", "c1", at(FIRST_DAY), product_category="pumps")])
    build("staging", AS_OF, "run-1")
    warehouse.rows("drop table intermediate.int_category_days")
    results = {result.node_id: result.rows_affected for result in build("staging", AS_OF, "run-2")}
    assert results["model.stratum.int_account_days"] == 1
    assert warehouse.rows(DAYS) == _computed(orders)[0]


@pytest.mark.extended
def test_what_the_catalogue_says_later_restates_the_days_it_speaks_of(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    orders = Orders()
    moments = [at(FIRST_DAY + timedelta(days=number), 23) for number in range(3)]
    orders.land(
        AS_OF,
        [
            *(
                Line(str(number), f"o{number}", "c1", moment, product_id="p1")
                for number, moment in enumerate(moments)
            ),
            Line("own", "o9", "c2", moments[1], product_id="p1", product_category="belts"),
            Line("other", "o8", "c3", moments[1], product_id="p2"),
        ],
    )
    build("staging", AS_OF, "run-1")
    assert [row[2] for row in warehouse.rows(DAYS)] == ["belts"]
    catalogue = Records(warehouse, tmp_path, "products")
    company = {"name": "Test company", "timezone": TIMEZONE, "currency": CURRENCY}

    def known(category: str, since: str) -> dict[str, str | None]:
        return {"product_id": "p1", "category": category, "modified_at": f"{since} 00:00:00"}

    catalogue.load(AS_OF, known("pumps", "2026-01-02"), company=company)
    days = [("c1", FIRST_DAY + timedelta(days=1)), ("c1", FIRST_DAY + timedelta(days=2))]
    assert [row[:2] for row in warehouse.rows(QUEUE)] == days
    build("staging", AS_OF, "run-2")
    assert [row[:3] for row in warehouse.rows(DAYS)] == [
        *((*day, "pumps") for day in days),
        ("c2", FIRST_DAY + timedelta(days=1), "belts"),
    ]
    assert warehouse.rows(
        "select account_key, min(from_date) from intermediate.restatement_queue group by 1 order by 1"
    ) == [
        ("c1", FIRST_DAY),
        ("c2", FIRST_DAY + timedelta(days=1)),
        ("c3", FIRST_DAY + timedelta(days=1)),
    ]
    # A change of 3 January leaves the day before as it was; taken out again, it leaves no trace.
    load = catalogue.load(AS_OF, known("pumps", "2026-01-02"), known("tools", "2026-01-03"), company=company)
    build("staging", AS_OF, "run-3")
    assert [row[2] for row in warehouse.rows(DAYS)] == ["pumps", "tools", "belts"]
    retract(str(load.load_id), "wrong file")
    build("staging", AS_OF, "run-4")
    assert [row[2] for row in warehouse.rows(DAYS)] == ["pumps", "pumps", "belts"]
