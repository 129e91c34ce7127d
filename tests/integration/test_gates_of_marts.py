"""The gates of the marts and of what is to be published let good tables through and stop bad ones."""

from datetime import date, timedelta

import pytest

from include.quality.gate import GateFailed, run_gate
from include.warehouse.lock import begin_run, finish_run
from include.warehouse.publish import publish
from tests.conftest import Warehouse
from tests.fixtures.candidates import make_candidate
from tests.fixtures.layers import load_day, make_marts
from tests.integration.gate_stage import DAY, NEXT, failed_and_all, stopped

BEFORE = DAY - timedelta(days=30)


@pytest.fixture
def run_id(warehouse: Warehouse) -> str:
    """A run as of DAY that holds the build lock."""
    return begin_run(DAY)


def test_good_marts_pass(warehouse: Warehouse, run_id: str) -> None:
    load_day(DAY)
    make_marts(DAY)
    make_marts(NEXT)  # another date's rows are not this gate's
    assert run_gate("marts", DAY, run_id).failed == 0


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        ("delete from marts.account_features", r"account_features: .*before the first order.*nobody has ordered or signed"),
        ("delete from marts.account_rfm where account_id = 'A00003'", r"account_rfm: .*same accounts.*A00003"),
        ("update marts.account_tiers set tier = 'D' where account_id = 'A00003'", r"account_tiers\.tier: .*\"D\""),
        ("update marts.account_tiers set tier = 'B' where tier_rank between 2 and 6", "shares of the policy tier_shares"),
        ("update marts.account_tiers set calibrated_for = '2026-01-01' where tier = 'S'", "A calibration that cut"),
    ],
)  # fmt: skip
def test_bad_marts_stop_the_marts_gate(warehouse: Warehouse, run_id: str, break_it: str, told: str) -> None:
    load_day(DAY)
    make_marts(DAY)
    warehouse.rows(break_it)
    stopped(warehouse, "marts", run_id, told)


def test_every_expectation_of_the_marts_suite_can_fail(warehouse: Warehouse, run_id: str) -> None:
    load_day(DAY)
    make_marts(DAY)
    for statement in (
        "insert into {features} select * from {features} where account_id = 'A00001'",
        "update {features} set account_id = null where account_id = 'A00002'",
        "update {features} set days_since_last_order = -1, orders_total = 0, return_rate_365d = -1, orders_30d = 9 "
        "where account_id = 'A00003'",
        "insert into {rfm} select * from {rfm} where account_id = 'A00001'",
        "update {rfm} set recency_band = null, frequency_band = null, monetary_band = null, rfm_score = '602' "
        "where account_id = 'A00003'",
        "insert into {tiers} select * from {tiers} where account_id = 'A00001'",
        "update {tiers} set tier = null where account_id = 'A00002'",
        "update {tiers} set tier = 'D' where tier_rank between 3 and 6",
        "update {tiers} set tier = 'B' where account_id = 'A00040'",
        "update {tiers} set calibrated_for = '2026-01-01' where account_id = 'A00001'",
        "update {lifecycle} set age_stage = null where account_id = 'A00003'",
        "update {lifecycle} set age_stage = 'old' where account_id = 'A00004'",
        "insert into {lifecycle} select * from {lifecycle} where account_id = 'A00005'",
    ):
        warehouse.rows(
            statement.format(
                features="marts.account_features",
                rfm="marts.account_rfm",
                tiers="marts.account_tiers",
                lifecycle="marts.account_lifecycle",
            )
        )
    with pytest.raises(GateFailed):
        run_gate("marts", DAY, run_id)
    failed, every = failed_and_all(warehouse)
    ((*_, that_somebody_is_there),) = every - failed
    assert "marts.lapse_features" in that_somebody_is_there


@pytest.mark.parametrize(("held_on", "passes"), [(DAY, True), (BEFORE, True), (NEXT, False)])
def test_who_signs_contracts_alone_passes_once_one_of_them_has_held(
    warehouse: Warehouse, run_id: str, held_on: date, passes: bool
) -> None:
    load_day(DAY)
    make_marts(DAY, accounts=0)
    warehouse.rows("insert into marts.lapse_features values (%s, 'A00001')", held_on)
    if passes:
        assert run_gate("marts", DAY, run_id).failed == 0
    else:
        stopped(warehouse, "marts", run_id, "before the first order and the first signed contract")


def test_a_missing_mart_is_told_in_one_line(warehouse: Warehouse, run_id: str) -> None:
    load_day(DAY)
    make_marts(DAY)
    warehouse.rows("drop table marts.account_rfm")
    stopped(warehouse, "marts", run_id, r'relation "marts\.account_rfm" does not exist')


def test_a_good_candidate_passes(warehouse: Warehouse, run_id: str) -> None:
    load_day(DAY)
    make_candidate(run_id, DAY)
    assert run_gate("published", DAY, run_id).failed == 0


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        ("delete from candidate.customer_360", r"candidate\.customer_360: expect_table_row_count"),
        ("update candidate.customer_360 set run_id = 'other' where account_id = 'A00003'", r"customer_360: .*this run's"),
        ("update candidate.tier_summary set accounts = 4 where tier = 'S'", r"tier_summary: .*that customer_360 gives it"),
        ("delete from candidate.account_tiers where account_id = 'A00003'", r"account_tiers: .*The history shows"),
    ],
)  # fmt: skip
def test_a_bad_candidate_stops_the_published_gate_and_the_old_set_stands(
    warehouse: Warehouse, run_id: str, break_it: str, told: str
) -> None:
    load_day(DAY)
    make_candidate(run_id, DAY, accounts=12)
    publish(run_id, DAY)
    finish_run(run_id)
    again = begin_run(DAY)
    make_candidate(again, DAY)
    warehouse.rows(break_it)
    stopped(warehouse, "published", again, told)
    assert warehouse.rows("select distinct run_id, count(*) over () from published.customer_360") == [
        (run_id, 13)
    ]


def test_every_expectation_of_the_published_suite_can_fail(warehouse: Warehouse, run_id: str) -> None:
    load_day(DAY)
    make_candidate(run_id, DAY)
    for statement in (
        "update {customers} set account_id = null where account_id = 'A00001'",
        "update {customers} set account_id = 'A00003' where account_id = 'A00004'",
        "update {customers} set tier = 'D', currency = 'USD', days_since_last_order = -1 where account_id = 'A00005'",
        "update {customers} set tier = null, crm_record_id = '7' where account_id in ('A00006', 'A00007')",
        "update {customers} set run_id = 'other' where account_id = 'A00008'",
        "update {customers} set age_stage = 'old', nps_latest = 11, churn_probability = 1.5 where account_id = 'A00009'",
        "update {customers} set churn_reason_2 = null where account_id = 'A00010'",
        "update {customers} set churn_told_by = 'rules', churn_warning_severity = 'high' where account_id = 'A00011'",
        "update {customers} set repurchase_told_by = 'nothing' where account_id = 'A00014'",
        "update {tiers} set tier = 'A', accounts = 4, net_revenue_365d = 1, actual_share = 0.5 where tier = 'S'",
        "update {tiers} set as_of_date = '2026-06-29'",
        "insert into {company} select * from {company}",
        "update {company} set accounts = 1, run_id = null",
        "update {history} set tier = 'S', run_id = 'other' where account_id = 'A00010'",
        "update candidate.kpis set value = null, run_id = 'other'",
        "insert into candidate.kpis (run_id, as_of_date, month, kpi, dimension, dimension_value, kpi_date, unit, value, "
        "numerator, denominator) values ('other', '2026-06-30', '2026-05-01', 'half', 'company', 'all', '2026-05-31', "
        "'share', 0.9, 1, 2)",
        "update candidate.operating_list set reason = null, owner_role = null, account_id = 'A99999', run_id = 'other'",
        "delete from candidate.account_clusters where account_id = 'A00012'",
        "update candidate.account_clusters set run_id = 'other'",
        "update candidate.recommendations set place = 2, run_id = 'other'",
        "update {customers} set no_recommendation_reason = null, churn_definition = null where account_id = 'A00013'",
        "update candidate.freshness set lateness_days = -1, run_id = 'other'",
        "update candidate.model_status set status = 'absent', run_id = 'other'",
    ):
        warehouse.rows(
            statement.format(
                customers="candidate.customer_360",
                tiers="candidate.tier_summary",
                company="candidate.company_summary",
                history="candidate.account_tiers",
            )
        )
    with pytest.raises(GateFailed):
        run_gate("published", DAY, run_id)
    failed, every = failed_and_all(warehouse)
    assert every - failed == {("candidate.customer_360", None, "expect_table_row_count_to_be_between", None)}
