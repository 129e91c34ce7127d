"""KPIs and cohorts of whole companies, simulated and real: equal to an independent computation. Long, so extended."""

from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path

import pytest

from include.dbt import build
from include.settings import PROJECT_DIR
from include.simulate.market.scales import LAST_DAY, Scale
from include.sources.behavior import ingest_behavior
from include.sources.config import Sources, load_sources
from include.sources.orders import ingest_orders
from tests.conftest import Warehouse
from tests.dbt import pandas_kpis
from tests.fixtures.market import write_slice

pytestmark = pytest.mark.extended
RETAIL_DAY = date(2011, 9, 10)
SIX_DECIMALS = Fraction(2, 10**6)
"""The last of six decimals may be rounded twice."""
TOLERANCE = {"minutes_a_day": Fraction(1, 200)}
"""An account's minutes of a day are kept in hundredths."""


def _assert_equal_to_pandas(warehouse: Warehouse, dates: list[date]) -> None:
    days = pandas_kpis.read_days(warehouse)
    for as_of in dates:
        found = dict(
            warehouse.rows(
                "select kpi, value from marts.kpis where as_of_date = %s and dimension = 'company'", as_of
            )
        )
        for kpi, value in pandas_kpis.Kpis(days, as_of).of_company().items():
            if value is None or found[kpi] is None:
                assert found[kpi] is value, f"{kpi} on {as_of}"
            else:
                assert abs(Fraction(found[kpi]) - value) < TOLERANCE.get(kpi, SIX_DECIMALS), (
                    f"{kpi} on {as_of}"
                )
    rows = warehouse.rows(
        "select cohort_month, months_since, accounts, accounts_ordered, accounts_active "
        "from marts.retention_cohorts"
    )
    assert {(row[0], row[1]): row[2:] for row in rows} == pandas_kpis.cohorts(days, max(dates))


def test_the_simulated_companys_kpis_equal_an_independent_computation(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    since = str(LAST_DAY - timedelta(days=250))
    write_slice(tmp_path, Scale("few", 60, 1_800, 12_000), seed=1, customers=40, events_since=since)
    whole = load_sources(PROJECT_DIR / "include" / "simulate" / "sources.yml")
    assert whole.orders is not None
    assert whole.behavior is not None
    sources = whole.model_copy(
        update={
            "orders": whole.orders.model_copy(update={"file": str(tmp_path / "orders.csv")}),
            "behavior": whole.behavior.model_copy(update={"file": str(tmp_path / "events.csv")}),
            "crm": None,
            "sync": {},
        }
    )
    ingest_orders(sources, LAST_DAY)
    ingest_behavior(sources, LAST_DAY)
    build("staging", LAST_DAY, "run-1")
    build("marts", LAST_DAY, "run-1")
    dates = [day for (day,) in warehouse.rows("select distinct as_of_date from marts.kpis order by 1")]
    assert len(dates) > 20
    _assert_equal_to_pandas(warehouse, dates)
    index = warehouse.value(
        "select value from marts.kpis where kpi = 'retention_index' and dimension = 'company' "
        "and as_of_date = %s",
        LAST_DAY,
    )
    assert 0 < index < 100


def test_online_retails_kpis_equal_an_independent_computation(
    warehouse: Warehouse, online_retail: Sources
) -> None:
    ingest_orders(online_retail, RETAIL_DAY)
    build("staging", RETAIL_DAY, "run-1")
    build("marts", RETAIL_DAY, "run-1")
    _assert_equal_to_pandas(warehouse, [date(2009, 12, 31), date(2011, 2, 28), RETAIL_DAY])
    # It knows no behavior: the index has no value, and says so.
    missing = warehouse.rows(
        "select distinct value, no_value_reason from marts.kpis where kpi = 'feature_depth'"
    )
    assert missing == [(None, "no behavior event is known up to the date, or no core feature is in force")]
