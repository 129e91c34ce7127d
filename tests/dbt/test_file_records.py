"""What is built from a CRM of files says what the files say, as of each day: on the simulated company, counted anew."""

from datetime import date
from pathlib import Path

import duckdb
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
                (select arg_max(score, answered_at) from survey_answers s join mine m using (crm_id)
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
        "select source_account_id, account_id from identity.int_account_crosswalk where source_system = 'files'"
    )
    expected = market.files(f"{ACCOUNT_OF_RECORD} where created_at <= $as_of", END)
    assert sorted(rows) == sorted(expected)
    assert market.warehouse.value(
        "select count(*) from staging.stg_files_accounts where parent_record_id like 'files:%' and is_latest"
    )
