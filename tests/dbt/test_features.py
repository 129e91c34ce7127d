"""Features are kept for month-ends and every date built: by one definition, whenever and in whichever order made."""

import random
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

import pandas as pd
import pytest

from include.dbt import build
from include.errors import StratumError
from tests.conftest import Warehouse
from tests.dbt import pandas_marts
from tests.dbt.raw_rows import Event, Events, Line, Orders, Version, at, land_versions
from tests.dbt.selections import FEATURES

FIRST_DAY = date(2025, 7, 10)
AS_OF = date(2026, 6, 20)
ACCOUNTS = 24


class Company:
    """A random company with orders, usage and a CRM, landed in parts: `land` takes what is dated up to a day."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.orders, self.events = Orders(), Events()
        self.lines = [line for number in range(ACCOUNTS) for line in self._lines(f"c{number:02}")]
        self.uses = [use for number in range(ACCOUNTS) for use in self._uses(f"c{number:02}")]
        self.crm: dict[str, list[Version]] = {
            "companies": [
                Version(str(number), f"c{number:02}" if number % 8 else None, at(FIRST_DAY), {"name": "x"})
                for number in range(ACCOUNTS - 2)
            ],
            **{entity: [] for entity in ("contacts", "deals", "tickets", "feedback_submissions")},
        }
        for number in range(ACCOUNTS - 2):
            self._records(str(number))

    def land(self, as_of: date) -> None:
        """Land everything dated up to `as_of` that is not landed yet, each source in one load."""
        self.orders.land(as_of, self._due(self.lines, as_of))
        self.events.land(as_of, self._due(self.uses, as_of))
        for entity, versions in self.crm.items():
            due = [version for version in versions if version.valid_from < at(as_of + timedelta(days=1), 0)]
            land_versions(as_of, entity, due)
            versions[:] = [version for version in versions if version not in due]

    @staticmethod
    def _due(rows: list, as_of: date) -> list:
        due = [row for row in rows if row.day <= as_of]
        rows[:] = [row for row in rows if row.day > as_of]
        return due

    def _day(self) -> date:
        return FIRST_DAY + timedelta(days=self.chance.randrange((AS_OF - FIRST_DAY).days + 12))

    def _lines(self, account: str) -> list[Line]:
        lines = []
        for order in range(self.chance.choice([1, 2, 4, 9])):
            key, day = f"{account}-{order}", self._day()
            amount = Decimal(self.chance.randrange(100, 90_000)) / 100
            category = self.chance.choice(["pumps", "tools", "belts", None] if account != "c01" else [None])
            moment = at(day, self.chance.randrange(24))
            lines.append(Line(key, f"o{key}", account, moment, amount, product_category=category))
            if self.chance.random() < 0.3:
                back = day + timedelta(days=9)
                lines.append(Line(f"{key}r", f"r{key}", account, at(back), -amount, -1, "return"))
        return lines

    def _uses(self, account: str) -> list[Event]:
        uses = []
        for number in range(self.chance.choice([0, 5, 25])):
            name = self.chance.choice(["login", "feature_use", "page_view"])
            features = ["quick_order", "reorder_template", "price_list"]
            feature = self.chance.choice(features) if name == "feature_use" else None
            lasted = self.chance.choice([None, Decimal("0.5"), Decimal(95), Decimal(1800)])
            moment = at(self._day(), self.chance.randrange(24))
            session = self.chance.choice(["s1", "s2", None])
            uses.append(Event(f"{account}-{number}", account, moment, name, feature, session, lasted))
        return uses

    def _records(self, company: str) -> None:
        for number in range(self.chance.randrange(3)):
            key, start = f"{company}-{number}", at(self._day(), 23)
            later = start + timedelta(days=self.chance.randrange(1, 60), hours=5)
            ticket = {"createdate": start.isoformat(), "hs_ticket_priority": "URGENT", "closed_date": ""}
            closed = ticket | {
                "closed_date": later.isoformat(),
                "hs_ticket_priority": self.chance.choice(["URGENT", "LOW"]),
            }
            deal = {"amount": "120.50", "dealstage": "contractsent", "hs_is_closed_won": "false"}
            deal |= {"closedate": later.isoformat(), "deal_currency_code": "CNY"}
            won = deal | {"dealstage": "closedwon", "hs_is_closed_won": "true"}
            nps = {"hs_survey_type": "NPS", "hs_value": str(self.chance.randrange(11))}
            nps |= {"hs_submission_timestamp": start.isoformat()}
            contact = {"hs_buying_role": self.chance.choice(["END_USER", "INFLUENCER;DECISION_MAKER", None])}
            gone = self.chance.random() < 0.5
            pairs = {
                "tickets": (ticket, closed),
                "deals": (deal, won),
                "feedback_submissions": (nps,),
                "contacts": (contact, contact),
            }
            for entity, (first, *second) in pairs.items():
                self.crm[entity].append(Version(key, company, start, first))
                for properties in second:
                    archived = entity == "contacts" and gone
                    self.crm[entity].append(Version(key, company, later, properties, archived))


def _features(warehouse: Warehouse) -> list[tuple]:
    return warehouse.rows("select * from marts.account_features order by as_of_date, account_id")


def _kept_dates(warehouse: Warehouse) -> list[date]:
    return [d for (d,) in warehouse.rows("select distinct as_of_date from marts.account_features order by 1")]


def _assert_every_kept_date_equals_pandas(warehouse: Warehouse) -> None:
    for as_of in _kept_dates(warehouse):
        lines = pandas_marts.current_lines(warehouse, as_of)
        orders = pandas_marts.features(lines, as_of).sort_index()
        expected = orders.join(pandas_marts.usage(warehouse, orders.index, as_of)).join(
            pandas_marts.crm(warehouse, orders.index, as_of)
        )
        rows = warehouse.rows(
            f"select account_id, {', '.join(expected.columns)} from marts.account_features where as_of_date = %s",
            as_of,
        )
        found = (
            pd.DataFrame(rows, columns=["account_id", *expected.columns]).set_index("account_id").sort_index()
        )
        pd.testing.assert_frame_equal(found, expected, check_dtype=False, obj=f"features of {as_of}")


def _run(warehouse: Warehouse, as_of: date) -> None:
    run_id = f"run-{as_of}-{warehouse.value('select count(*) from audit.dbt_nodes')}"
    build("staging", as_of, run_id)
    build("marts", as_of, run_id, only=FEATURES)
    queues = ("account_day_queue", "usage_day_queue", "restatement_queue")
    assert [warehouse.value(f"select count(*) from intermediate.{queue}") for queue in queues] == [0, 0, 0]


@pytest.fixture(scope="module")
def company(module_warehouse: Warehouse) -> Company:
    """All that is dated up to AS_OF, landed and built at once."""
    company = Company(seed=11)
    company.land(AS_OF)
    _run(module_warehouse, AS_OF)
    return company


def test_month_ends_and_the_date_equal_an_independent_computation(
    module_warehouse: Warehouse, company: Company
) -> None:
    first = module_warehouse.value(
        "select min(order_date) from intermediate.int_account_days where orders > 0"
    )
    month_ends = pd.date_range(first, AS_OF, freq="ME").date
    assert _kept_dates(module_warehouse) == [*month_ends, AS_OF]
    assert len(month_ends) == 11
    _assert_every_kept_date_equals_pandas(module_warehouse)
    # The company is worth the comparison: every column tells accounts apart.
    columns = module_warehouse.rows(
        "select column_name from information_schema.columns where table_name = 'account_features' "
        "and column_name not in ('order_country', 'core_features_in_force') and column_name not like '%%prior_365d'"
    )
    for (column,) in columns:
        values = module_warehouse.value(f"select count(distinct {column}) from marts.account_features")
        assert values > 1, column


@pytest.mark.extended
def test_late_corrected_and_moved_rows_restate_every_kept_date_from_their_day_on(
    module_warehouse: Warehouse, company: Company
) -> None:
    """Runs after the test above, on its warehouse."""
    next_day, back = AS_OF + timedelta(days=1), AS_OF - timedelta(days=45)
    company.land(next_day)
    _run(module_warehouse, next_day)
    _run(module_warehouse, back)  # an older date, with nothing new
    _assert_every_kept_date_equals_pandas(module_warehouse)

    orders, events = company.orders, company.events
    early = at(date(2025, 6, 30), 23)  # before the first order: a month-end more
    orders.land(
        next_day, [Line("late", "late", "c00", early), Line("new", "new", "c90", at(date(2026, 2, 3)))]
    )
    buyer = orders.current["c05-0"]
    # Another account, whose own first order this may become; and a day that is gone.
    orders.correct(next_day, "c05-0", customer_id="c06", ordered_at=buyer.ordered_at - timedelta(days=40))
    use = next(event for event in events.current.values() if event.event_name == "login")
    events.land(next_day, [Event("late", "c01", at(date(2025, 11, 30), 23), session_id="s9")])
    events.correct(next_day, use.row_key, event_name="page_view", at=use.at - timedelta(days=33))
    ticket = next(iter(module_warehouse.rows("select record_id, company_record_id from raw_hubspot.tickets")))
    moved = {"createdate": at(date(2026, 1, 5)).isoformat(), "hs_ticket_priority": "LOW", "closed_date": ""}
    land_versions(
        next_day, "tickets", [Version(ticket[0], "11", at(date(2026, 3, 1)), moved, owner_before=ticket[1])]
    )
    # A company gets a number, another one's changes: their records speak for other accounts from that day on.
    land_versions(
        next_day, "companies", [Version("8", "c08", at(next_day), {}), Version("9", "c10", at(next_day), {})]
    )
    _run(module_warehouse, back)  # an older date, and rows for the newer ones
    assert {next_day, back, date(2025, 6, 30)} < set(_kept_dates(module_warehouse))
    _assert_every_kept_date_equals_pandas(module_warehouse)


def test_a_changed_definition_rebuilds_all_kept_dates_and_an_unchanged_one_only_its_own(
    module_warehouse: Warehouse, company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs after the tests above, on their warehouse."""
    before = _features(module_warehouse)
    module_warehouse.rows(
        "update marts.account_features set orders_total = 999 where as_of_date <> %s", AS_OF
    )
    _run(module_warehouse, AS_OF)
    assert module_warehouse.value("select count(*) from marts.account_features where orders_total = 999")
    monkeypatch.setattr("include.dbt.features_definition", lambda: "another definition")
    _run(module_warehouse, AS_OF)
    assert _features(module_warehouse) == before
    assert module_warehouse.value("select count(*) from marts.account_next_orders") == len(before)


@pytest.mark.extended
def test_dates_built_in_any_order_while_rows_arrive_hold_the_same_features(warehouse: Warehouse) -> None:
    """Loads in the order of their days, builds shuffled between them; pandas knows nothing of either."""
    company = Company(seed=5)
    days = [date(2026, 2, 28), AS_OF, date(2025, 12, 31)]
    for place, day in enumerate(days):
        company.land(day)
        if place == 1:  # orders of long ago, late
            company.orders.land(
                day,
                [
                    replace(line, row_key=f"{line.row_key}x", order_id=f"{line.order_id}x")
                    for line in list(company.orders.current.values())[::9]
                ],
            )
        _run(warehouse, day)
    assert set(days) < set(_kept_dates(warehouse))
    _assert_every_kept_date_equals_pandas(warehouse)


@pytest.mark.extended
def test_a_failed_build_of_features_leaves_them_and_the_queue_for_the_next(warehouse: Warehouse) -> None:
    orders = Orders()
    orders.land(AS_OF, [Line("1", "o1", "c1", at(AS_OF - timedelta(days=60)))])
    _run(warehouse, AS_OF)
    before = _features(warehouse)
    orders.land(AS_OF, [Line("2", "o2", "c1", at(AS_OF - timedelta(days=50)), Decimal("666.00"))])
    warehouse.rows(
        "alter table marts.account_features add constraint refuse check (net_revenue_total < 600) not valid"
    )
    build("staging", AS_OF, "run-failing")
    with pytest.raises(StratumError, match=r"account_features \(error\): .*refuse"):
        build("marts", AS_OF, "run-failing", only=FEATURES)
    assert _features(warehouse) == before
    warehouse.rows("alter table marts.account_features drop constraint refuse")
    _run(warehouse, AS_OF)
    ordered = warehouse.rows("select as_of_date, orders_total from marts.account_features order by 1")
    assert ordered == [(date(2026, 4, 30), 1), (date(2026, 5, 31), 2), (AS_OF, 2)]


def test_the_next_order_looks_past_its_date(warehouse: Warehouse) -> None:
    orders = Orders()
    orders.land(AS_OF, [Line(str(n), f"o{n}", "c1", at(AS_OF - timedelta(days=n))) for n in (0, 40, 90)])
    _run(warehouse, AS_OF - timedelta(days=1))
    next_orders = warehouse.rows(
        "select as_of_date, next_order_date from marts.account_next_orders order by 1"
    )
    second = AS_OF - timedelta(days=40)
    assert next_orders == [
        (date(2026, 3, 31), second),
        (date(2026, 4, 30), second),
        (date(2026, 5, 31), AS_OF),
        (AS_OF - timedelta(days=1), AS_OF),
    ]
