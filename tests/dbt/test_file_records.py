"""What is built from a CRM of files says what the files say, as of each day: on the simulated company, counted anew."""

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from include.dbt import build
from include.quality.gate import run_gate
from include.simulate.market.scales import Scale
from include.simulate.market.write import write_market
from include.sources.behavior import ingest_behavior
from include.sources.config import load_sources
from include.sources.crm import ingest_crm_and_records
from include.sources.loads import Load
from include.sources.orders import ingest_orders
from include.sources.record_contract import ENTITIES
from include.warehouse.lock import begin_run
from tests.conftest import Warehouse
from tests.dbt import pandas_marts
from tests.integration.record_stage import check_books

JUNE, END = date(2025, 6, 30), date(2025, 12, 31)


class Market:
    """A simulated company in files, and the warehouse it was loaded into, as of two days, and built."""

    def __init__(self, warehouse: Warehouse, folder: Path, loads: dict[date, dict[str, Load]]) -> None:
        self.warehouse, self.folder, self.loads = warehouse, folder, loads

    def files(self, query: str, as_of: date) -> list[tuple]:
        """Ask the files; the views are the entities', `as_of` the end of a day."""
        with duckdb.connect() as engine:
            for path in [*self.folder.glob("crm/*.parquet"), *self.folder.glob("reference/*.parquet")]:
                engine.execute(f"create view {path.stem} as from '{path}'")
            engine.execute(f"set variable as_of = timestamp '{as_of} 23:59:59.999999'")
            return engine.execute(query.replace("$as_of", "getvariable('as_of')")).fetchall()


@pytest.fixture(scope="module")
def market(module_warehouse: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Market:
    folder = tmp_path_factory.mktemp("market") / "company"
    write_market(folder, Scale("tiny", 200, 4_000, 6_000), seed=5)
    sources = load_sources(folder / "sources.yml")
    loads: dict[date, dict[str, Load]] = {}
    for as_of in (JUNE, END):
        ingest_orders(sources, as_of)
        ingest_behavior(sources, as_of)
        loads[as_of] = ingest_crm_and_records(sources, as_of) or {}
    run_id = begin_run(END)
    run_gate("raw", END, run_id)
    for layer in ("staging", "marts"):
        build(layer, END, run_id)
    return Market(module_warehouse, folder, loads)


def test_every_entity_lands_and_its_books_add_up(market: Market) -> None:
    for as_of, loads in market.loads.items():
        assert list(loads) == list(ENTITIES)
        for load in loads.values():
            check_books(market.warehouse, load)
            assert (load.as_of, load.reasons) == (as_of, {})
            assert load.rows_in > 0, load.entity


ACCOUNT_OF_RECORD = """
    select crm_id,
        coalesce(account_no, case when not is_test then coalesce(by_tax.customer_no, by_domain.customer_no) end,
            'files:' || crm_id) as account_no
    from accounts
    left join customers as by_tax using (tax_id)
    left join customers as by_domain on accounts.domain = by_domain.domain"""
"""Which account a record of the CRM is: by its number, else by its customer's tax id, else by the domain."""


@pytest.mark.parametrize("as_of", [JUNE, END])
def test_features_of_the_crm_equal_the_files(market: Market, as_of: date) -> None:
    expected = market.files(
        f"""
        with mine as ({ACCOUNT_OF_RECORD}),
        of_day as (
            select mine.account_no,
                (select count(*) from contacts c join mine m using (crm_id) where m.account_no = mine.account_no
                    and c.created_at <= $as_of) as contacts,
                (select count(*) from tickets t join mine m using (crm_id) where m.account_no = mine.account_no
                    and opened_at <= $as_of and (resolved_at is null or resolved_at > $as_of)) as open_tickets,
                (select count(*) from opportunities o join mine m using (crm_id) where m.account_no = mine.account_no
                    and o.created_at <= $as_of and (closed_at is null or closed_at > $as_of)) as open_deals,
                (select arg_max(score, (answered_at, answer_id)) from survey_answers s join mine m using (crm_id)
                    where m.account_no = mine.account_no and answered_at <= $as_of) as nps
            from (select distinct account_no from mine where account_no not like 'files:%') as mine
        )
        select * from of_day order by account_no""",
        as_of,
    )
    built = market.warehouse.rows(
        "select account_id, contacts, open_tickets, open_deals, nps_latest from marts.account_features "
        "where as_of_date = %s order by account_id",
        as_of,
    )
    told = {row[0]: row for row in expected}
    assert len(built) > 100
    without_number = (0, 0, 0, None)
    assert [row for row in built if row != told.get(row[0], (row[0], *without_number))] == []
    assert sum(row[3] for row in built) > 0


@pytest.mark.parametrize("as_of", [JUNE, END])
def test_measures_of_orders_categories_and_use_equal_an_independent_computation(
    market: Market, as_of: date
) -> None:
    lines = pandas_marts.current_lines(market.warehouse, as_of)
    expected = pandas_marts.features(lines, as_of).sort_index()
    expected = expected.join(pandas_marts.usage(market.warehouse, expected.index, as_of))
    rows = market.warehouse.rows(
        f"select account_id, {', '.join(expected.columns)} from marts.account_features where as_of_date = %s",
        as_of,
    )
    found = pd.DataFrame(rows, columns=["account_id", *expected.columns]).set_index("account_id").sort_index()
    internal = set(expected.index) - set(found.index)
    assert internal == {
        account
        for (account,) in market.warehouse.rows(
            "select account_id from identity.int_account_crosswalk where is_internal"
        )
    } & set(expected.index)
    pd.testing.assert_frame_equal(found, expected.drop(index=internal), check_dtype=False)
    assert found[["categories_365d", "new_categories_mtd", "orders_prior_365d"]].nunique().min() > 1
    assert found["active_minutes_30d"].nunique() > 10


@pytest.mark.parametrize("as_of", [JUNE, END])
def test_each_opportunity_is_in_the_stage_it_last_entered(market: Market, as_of: date) -> None:
    expected = market.files(
        "select opportunity_id, arg_max(stage, entered_at) from opportunity_stages where entered_at <= $as_of "
        "group by all order by 1",
        as_of,
    )
    built = market.warehouse.rows(
        "select record_id, stage_name from staging.stg_files_opportunities where valid_from_date <= %(day)s "
        "and (valid_until_date > %(day)s or valid_until_date is null) order by 1".replace(
            "%(day)s", f"'{as_of}'"
        )
    )
    assert built == expected
    assert len({stage for _, stage in built}) == 6


def test_answers_hold_nps_and_what_customers_said_of_their_tickets(market: Market) -> None:
    built = dict(
        market.warehouse.rows(
            "select survey_type, count(distinct record_id) from intermediate.int_crm_survey_answers group by 1"
        )
    )
    expected = market.files(
        "select (select count(*) from survey_answers where answered_at <= $as_of), "
        "(select count(*) from tickets where csat is not null and resolved_at <= $as_of)",
        END,
    )
    assert [(built["NPS"], built["CSAT"])] == expected


def test_contracts_wait_for_their_signature_as_of_a_day(market: Market) -> None:
    expected = market.files(
        "select count(*) filter (where signed_at <= $as_of), count(*) from contracts where sent_at <= $as_of",
        JUNE,
    )
    built = market.warehouse.rows(
        f"select count(signed_at), count(*) from staging.stg_contracts where valid_from_date <= '{JUNE}' "
        f"and (valid_until_date > '{JUNE}' or valid_until_date is null)"
    )
    assert built == expected


def test_reference_rows_are_those_of_the_files(market: Market) -> None:
    for model, entity in (
        ("stg_customers", "customers"),
        ("stg_products", "products"),
        ("stg_experiment_assignments", "experiment_assignments"),
    ):
        expected = market.files(f"select count(*) from {entity}", END)
        assert market.warehouse.rows(f"select count(*) from staging.{model} where is_latest") == expected
    spend = market.files("select sum(amount), count(*) from campaign_spend where month <= $as_of::date", END)
    assert market.warehouse.rows("select sum(amount), count(*) from staging.stg_campaign_spend") == spend
    growth = market.warehouse.rows(
        "select count(*), min(yearly_growth), max(valid_from_date) from staging.stg_industries"
    )
    assert growth[0][0] == 12
    assert growth[0][2] == date(2025, 1, 1)


def test_accounts_of_files_are_accounts_of_their_numbers(market: Market) -> None:
    rows = market.warehouse.rows(
        "select source_account_id, account_id from identity.int_account_crosswalk "
        "where source_system = 'files' and valid_until_date is null"
    )
    expected = market.files(f"{ACCOUNT_OF_RECORD} where created_at <= $as_of", END)
    assert sorted(rows) == sorted(expected)
    assert market.warehouse.value(
        "select count(*) from staging.stg_files_accounts where parent_record_id like 'files:%' and is_latest"
    )


def _profiled(market: Market, as_of: date, columns: str, table: str) -> dict[str, tuple]:
    """Return what a mart says of each account on a date."""
    rows = market.warehouse.rows(
        f"select account_id, {columns} from marts.{table} where as_of_date = %s", as_of
    )
    return {row[0]: row[1:] for row in rows}


def _of_accounts(market: Market, query: str, as_of: date) -> dict[str, list[tuple]]:
    """Return rows of the files by account; the query's first column is the CRM's own id."""
    accounts = dict(market.files(ACCOUNT_OF_RECORD, as_of))
    found: dict[str, list[tuple]] = {}
    for crm_id, *row in market.files(query, as_of):
        found.setdefault(accounts[crm_id], []).append(tuple(row))
    return found


@pytest.mark.parametrize("as_of", [JUNE, END])
def test_relationships_equal_the_files(market: Market, as_of: date) -> None:
    year_ago = as_of - timedelta(days=364)
    contracts = _of_accounts(
        market, "select crm_id, starts_on, ends_on from contracts where signed_at <= $as_of", as_of
    )
    trials = _of_accounts(
        market,
        "select crm_id, 1 from opportunities where type = 'trial' and created_at <= $as_of "
        "and not (stage = 'lost' and closed_at <= $as_of)",
        as_of,
    )
    referrals = _of_accounts(
        market,
        f"select crm_id, 1 from referrals where referred_at <= $as_of and referred_at::date >= date '{year_ago}'",
        as_of,
    )
    answers = _of_accounts(
        market,
        "select crm_id, score from survey_answers where kind = 'NPS' and answered_at <= $as_of "
        f"and answered_at::date >= date '{year_ago}'",
        as_of,
    )
    orders = _profiled(market, as_of, "orders_total, last_order_date", "account_features")
    built = _profiled(market, as_of, "relationship_stage, account_nps::float", "account_relationships")
    expected = {}
    for account in _profiled(market, as_of, "1", "account_profiles"):
        total, last = orders.get(account, (0, None))
        terms = contracts.get(account, [])
        begun = [term for term in terms if term[0] <= as_of]
        in_term = any(term[1] >= as_of for term in begun)
        in_window = (
            last is not None and last >= year_ago and (not begun or last > max(term[1] for term in begun))
        )
        scores = [score for (score,) in answers.get(account, [])]
        nps = None
        if scores:
            nps = 100 * (sum(s >= 9 for s in scores) - sum(s <= 6 for s in scores)) / len(scores)
        if not last and not begun:
            stage = "trial" if account in trials else "prospect"
        elif not in_term and not in_window:
            stage = "lapsed"
        else:
            again = total >= 2 or len({term[0] for term in terms}) > 1
            loyal = again and account in referrals and nps is not None and nps >= 80
            stage = "loyal" if loyal else "paying"
        expected[account] = (stage, nps if nps is None else round(nps, 4))
    assert {account: row for account, row in built.items() if row != expected.get(account)} == {}
    assert built.keys() == expected.keys()
    stages = [stage for stage, _ in built.values()]
    assert min(stages.count(stage) for stage in ("prospect", "paying", "lapsed")) > 0


def _band(value: object, middle: str, high: str) -> str:
    """Return the band of a value: `middle` is the lowest of the middle, `high` the highest of it."""
    number = Decimal(str(value))
    return "low" if number < Decimal(middle) else "middle" if number <= Decimal(high) else "high"


@pytest.mark.parametrize("as_of", [JUNE, END])
def test_value_tiers_and_kinds_equal_the_files(market: Market, as_of: date) -> None:
    growth = dict(
        market.files(
            "select industry, arg_max(yearly_growth, effective_from) from industries "
            "where effective_from <= $as_of group by 1",
            as_of,
        )
    )
    categories = market.files("select count(distinct category) from products", as_of)[0][0]
    profiles = _profiled(market, as_of, "industry", "account_profiles")
    features = _profiled(market, as_of, "yearly_net_spend, categories_total", "account_features")
    built = _profiled(
        market,
        as_of,
        "value_tier, current_value_band, potential_value_band, cross_sell_room, is_growth_candidate",
        "account_value_tiers",
    )
    order = ["low", "middle", "high"]
    expected = {}
    for account, (spend, bought) in features.items():
        industry = profiles[account][0]
        current = _band(spend, "50000", "100000")
        potential = _band(growth[industry], "0.05", "0.15") if industry else None
        apart = order.index(potential) - order.index(current) if potential else 0
        expected[account] = (
            "middle" if abs(apart) == 2 else current,
            current,
            potential,
            None if bought is None else max(categories - bought, 0),
            (current, potential) == ("low", "high"),
        )
    assert built == expected
    assert {row[2] for row in built.values()} >= {"low", "middle", "high"}
    sizes = _of_accounts(
        market, "select crm_id, size, created_at from accounts where created_at <= $as_of", as_of
    )
    kinds = _profiled(market, as_of, "company_size, industry_focus", "account_kinds")
    told = {account: {size for size, _ in rows} for account, rows in sizes.items()}
    of_one_size = [account for account in kinds if len(told.get(account, ())) == 1]
    assert len(of_one_size) > 100
    for account in of_one_size:
        (size,) = told[account]
        assert kinds[account][0] == ("enterprise" if size == "enterprise" else "sme"), account
    focused = {"Medical", "Finance", "Manufacturing", "Retail"}
    for account, (industry,) in profiles.items():
        assert kinds[account][1] == (industry.lower() if industry in focused else None), account


def test_journeys_equal_the_files(market: Market) -> None:
    signed = _of_accounts(
        market, "select crm_id, signed_at::date from contracts where signed_at <= $as_of", END
    )
    used = {
        row[0]: row[1:]
        for row in market.warehouse.rows(
            "select customer_id, min(day) filter (where event_name = 'login'), "
            "max(day) filter (where event_name = 'login'), "
            "count(*) filter (where feature in ('quick_order', 'reorder_template', 'approval_flow')) from ("
            "select *, (event_at at time zone 'Asia/Shanghai')::date as day from raw_files.events "
            "where (file_id, source_row) not in (select file_id, source_row from raw_files.superseded_events)"
            ") as events where day <= %s and customer_id is not null group by 1",
            END,
        )
    }
    orders = _profiled(market, END, "first_order_date, last_order_date", "account_features")
    built = _profiled(
        market,
        END,
        "journey_stage, first_signed_date, live_date, days_to_go_live, days_to_first_order",
        "account_journeys",
    )
    expected = {}
    for account in _profiled(market, END, "1", "account_profiles"):
        signatures = [day for (day,) in signed.get(account, [])]
        first_login, last_login, uses = used.get(account, (None, None, 0))
        first_order, last_order = orders.get(account, (None, None))
        signs = [day for day in (*signatures, last_login, last_order) if day]
        live = min((day for day in (first_login, first_order) if day), default=None)
        joined = min((day for day in (*signatures, first_login) if day), default=None)
        if not signs:
            stage = None
        elif (END - max(signs)).days >= 365:
            stage = "lost"
        elif live is None:
            stage = "onboarding"
        else:
            stage = "active" if first_order or uses >= 5 else "newcomer"
        first_signed = min(signatures, default=None)
        expected[account] = (
            stage,
            first_signed,
            live,
            max((live - first_signed).days, 0) if live and first_signed else None,
            (first_order - joined).days if first_order and joined and first_order >= joined else None,
        )
    assert {account: row for account, row in built.items() if row != expected.get(account)} == {}
    assert built.keys() == expected.keys()
    assert {row[0] for row in built.values()} >= {None, "active", "lost"}
