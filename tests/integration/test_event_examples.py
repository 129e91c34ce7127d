"""The example mappings of event exports, each on its sample: what lands, and the days that are built of it."""

from datetime import date

import pytest

from include.dbt import build
from include.settings import PROJECT_DIR
from include.sources.behavior import ingest_behavior
from include.sources.config import load_sources
from include.warehouse.lock import begin_run, fail_run
from tests.conftest import Warehouse
from tests.fixtures.books import counts

DAY_1, DAY_2 = date(2026, 3, 2), date(2026, 3, 3)
EXAMPLES = PROJECT_DIR / "docs" / "examples"
FLOWS = {
    "sensorsdata": ["search", "view", "compare", "cart", "checkout"],
    "ga4": ["view_item_list", "view_item", "add_to_cart", "begin_checkout", "purchase"],
}
LOGIN = {
    "sensorsdata": ("u-23", "s-101", "420.000", {"event_duration": 420}),
    "ga4": ("u-23", "333.444.1772431200", "420.000", {"engagement_time_msec": 420000}),
}


@pytest.mark.parametrize("name", ["sensorsdata", "ga4"])
@pytest.mark.extended
def test_an_example_lands_its_sample_and_days_are_built_of_it(warehouse: Warehouse, name: str) -> None:
    given = load_sources(EXAMPLES / f"{name}.yml")
    # Two records of SensorsData's say what a user and an item are: they are no events.
    assert counts(ingest_behavior(given, DAY_1)) == (9, 9, 0, 0, 0, 1, 2)
    assert counts(ingest_behavior(given, DAY_2)) == (2, 2, 0, 0, 0, 0, 0)
    assert counts(ingest_behavior(given, DAY_2)) == (0, 0, 0, 0, 0, 0, 0)
    flow = "select flow_step from raw_files.events where flow_step is not null order by event_at"
    assert [step for (step,) in warehouse.rows(flow)] == FLOWS[name]
    user, session, seconds, properties = LOGIN[name]
    ((found_user, found_session, found_seconds, found),) = warehouse.rows(
        "select user_id, session_id, duration_s::text, properties from raw_files.events "
        "where customer_id = 'C-1002' and event_name = 'login'"
    )
    assert (found_user, found_session, found_seconds) == (user, session, seconds)
    assert found.items() >= properties.items()
    assert warehouse.rows(
        "select feature, date_trunc('second', event_at) = '2026-03-02 14:02:00+08' from raw_files.events "
        "where feature = 'price_list'"
    ) == [("price_list", True)]
    build("staging", DAY_2, begin_run(DAY_2, wait_s=0))
    fail_run(DAY_2, "end of the test's build")
    assert warehouse.rows(
        "select account_id, usage_date, events, logins from intermediate.int_usage_days order by 1, 2"
    ) == [("C-1001", DAY_1, 6, 1), ("C-1001", DAY_2, 2, 1), ("C-1002", DAY_1, 2, 1)]
