"""Growth on a simulated company, loaded from its files: what its experiment does is found, and its flow is counted anew."""

import json
from datetime import date
from pathlib import Path

import duckdb
import pytest

from include.dbt import build
from include.simulate.market.behavior import ABANDONED_RATE, LEAVES_AT
from include.simulate.market.scales import Scale
from include.simulate.market.write import write_market
from include.sources.behavior import ingest_behavior
from include.sources.config import load_sources
from include.sources.crm import ingest_crm_and_records
from include.sources.orders import ingest_orders
from tests.conftest import Warehouse

END = date(2025, 7, 31)
pytestmark = pytest.mark.extended


class Market:
    """The company's folder, and the warehouse it was loaded into and built."""

    def __init__(self, warehouse: Warehouse, folder: Path) -> None:
        self.warehouse, self.folder = warehouse, folder
        self.effects = json.loads((folder / "truth" / "effects.json").read_text(encoding="utf-8"))

    def files(self, query: str) -> list[tuple]:
        """Ask the files; the company's zone has no clock changes."""
        with duckdb.connect() as engine:
            engine.execute("set timezone = 'Asia/Shanghai'")
            engine.execute(f"create view events as from '{self.folder}/events/*.parquet'")
            engine.execute(f"create view spend as from '{self.folder}/reference/campaign_spend.parquet'")
            return engine.execute(query).fetchall()


@pytest.fixture(scope="module")
def market(module_warehouse: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Market:
    folder = tmp_path_factory.mktemp("market") / "company"
    write_market(folder, Scale("sessions", 800, 4_000, 160_000), seed=11)
    sources = load_sources(folder / "sources.yml")
    ingest_orders(sources, END)
    ingest_behavior(sources, END)
    ingest_crm_and_records(sources, END)
    for layer in ("staging", "marts"):
        build(layer, END, "run-market")
    return Market(module_warehouse, folder)


def test_the_interval_holds_what_the_experiment_does(market: Market) -> None:
    rows = market.warehouse.rows(
        "select metric, rate, difference, difference_from, difference_to, is_split_as_expected "
        "from marts.experiment_readouts where as_of_date = %s and experiment = %s and tier = 'all' and not is_control",
        END,
        market.effects["experiment"],
    )
    found = {row[0]: [None if value is None else float(value) for value in row[1:]] for row in rows}
    # Of those that leave at the comparison a share is kept; the others leave as before.
    truth = -market.effects["share_kept_of_those_leaving_at_comparison"] * LEAVES_AT[1]
    _, difference, low, high, split = found["left at comparison"]
    assert low <= truth <= high, (low, truth, high)
    # And it is found: the interval excludes that nothing was changed.
    assert low <= difference <= high < 0
    assert split == 1
    # Whether a session is completed the page does not change; that more is ordered is too small to be seen here.
    _, _, low, high, _ = found["orders in 90 days"]
    assert low <= high
    assert 0 < ABANDONED_RATE < 1


def test_the_funnel_of_a_month_equals_the_events(market: Market) -> None:
    expected = market.files(
        """
        with sessions as (
            select account_no, session_no, max(list_position(
                ['flow_search', 'flow_compare', 'flow_cart', 'flow_checkout'], event)) as furthest
            from events where event like 'flow_%' and account_no is not null
                and occurred_at::date between '2025-07-01' and '2025-07-31'
            group by all
        )
        select step, count(*) filter (where furthest >= step) from sessions
        cross join range(1, 5) as steps (step) group by all order by step"""
    )
    rows = market.warehouse.rows(
        "select position, sessions_reached, is_drop_off_stage, step from marts.purchase_flow "
        "where as_of_date = %s and tier = 'all' order by position",
        END,
    )
    internal = market.warehouse.value(
        "select count(*) from identity.int_account_crosswalk where is_internal and source_system = 'behavior'"
    )
    found = [(position, reached) for position, reached, *_ in rows]
    if internal == 0:
        assert found == expected
    else:
        # Accounts of the company's own are in the files and in no mart.
        assert all(mine <= theirs for (_, mine), (_, theirs) in zip(found, expected, strict=True))
        assert found[0][1] > 0.97 * expected[0][1]
    # As the articles have it: purchases leak at the comparison of prices.
    assert [step for _, _, is_drop_off, step in rows if is_drop_off] == ["compare"]


def test_spend_of_the_month_is_that_of_the_file(market: Market) -> None:
    expected = market.files("select channel, amount::double from spend where month = '2025-07-01' order by 1")
    found = market.warehouse.rows(
        "select channel, spend::float from marts.acquisition_months where as_of_date = %s and month = '2025-07-01' "
        "and channel not in ('all', 'not told') order by 1",
        END,
    )
    assert found == expected
    assert len(found) == 6


def test_the_kinds_of_channel_have_their_cost_where_every_new_account_came_by_one(market: Market) -> None:
    new_accounts = {
        (as_of, is_online): new
        for as_of, is_online, new in market.warehouse.rows(
            "select as_of_date, is_online, sum(new_accounts)::int from marts.acquisition_months "
            "where channel <> 'all' and month = date_trunc('month', as_of_date)::date and new_accounts > 0 group by 1, 2"
        )
    }
    # Whose record was not known yet to be its own came by a channel that nobody knew then: no cost is told of that date.
    not_known = {as_of for as_of, is_online in new_accounts if is_online is None}
    costs = market.warehouse.rows(
        "select as_of_date, dimension_value = 'online', value::float from marts.kpis "
        "where kpi = 'cac' and dimension = 'channel_kind' and value is not null"
    )
    assert len(costs) > 20
    assert not_known.isdisjoint(as_of for as_of, *_ in costs)
    for as_of, is_online, cost in costs:
        spent = market.warehouse.value(
            "select sum(spend)::float from marts.acquisition_months where channel <> 'all' and as_of_date = %s "
            "and month = date_trunc('month', as_of_date)::date and is_online = %s",
            as_of,
            is_online,
        )
        assert cost == pytest.approx(spent / new_accounts[as_of, is_online], abs=1e-4), as_of
