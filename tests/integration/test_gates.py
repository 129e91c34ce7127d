"""A gate lets good data through, stops bad data in one clear line, and writes every check down either way."""

from datetime import UTC, date, datetime

import pytest

from include.errors import StratumError
from include.quality.gate import GateFailed, run_gate
from include.sources.loads import bind_company, landing, record_absent
from include.warehouse.connect import connect
from include.warehouse.lock import begin_run
from tests.conftest import Warehouse
from tests.fixtures.candidates import make_candidate
from tests.fixtures.layers import add_event, add_line, add_version, load_day
from tests.integration.gate_stage import DAY, NEXT, checks, failed_and_all, stopped


@pytest.fixture
def run_id(warehouse: Warehouse) -> str:
    """A run as of DAY that holds the build lock."""
    return begin_run(DAY)


def test_good_raw_rows_pass_and_every_check_is_kept(warehouse: Warehouse, run_id: str) -> None:
    load_day(DAY)
    result = run_gate("raw", DAY, run_id)
    assert (result.gate, result.run_id, result.as_of, result.failed) == ("raw", run_id, DAY, 0)
    assert checks(warehouse, success=False) == set()
    kept = checks(warehouse, success=True)
    assert ("raw", "raw_files.order_lines", "unit_price", "expect_column_values_to_be_between") in kept
    assert (
        warehouse.value("select count(*) from audit.checks") == result.checks + 1
    )  # and the loads it checked
    assert (
        warehouse.rows(
            "select observed from audit.checks where column_name = 'line_type' and run_id = %s and as_of_date = %s",
            run_id,
            DAY,
        )[0][0]["element_count"]
        == 100
    )


def test_an_absent_source_is_written_down_and_not_checked(warehouse: Warehouse, run_id: str) -> None:
    load_day(DAY)
    run_gate("raw", DAY, run_id)
    assert ("raw", "raw_hubspot.companies", None, "source_absent") in checks(warehouse, success=True)
    assert not [c for c in checks(warehouse, success=True) if c[1] == "raw_hubspot.companies" and c[2]]


def test_what_the_crm_does_not_let_us_read_is_not_checked_and_the_rest_of_it_is(
    warehouse: Warehouse, run_id: str
) -> None:
    load_day(DAY)
    for entity in ("companies", "deals"):
        with landing("crm", entity, DAY) as load:
            add_version(load, "1", properties={"amount": "a lot"})
    stopped(warehouse, "raw", run_id, r"raw_hubspot\.deals\.amount: .*An amount is a number")
    kept = checks(warehouse, success=True)
    assert ("raw", "raw_hubspot.tickets", None, "source_absent") in kept
    assert ("raw", "raw_hubspot.companies", None, "source_absent") not in kept
    assert not [c for c in kept if c[1] == "raw_hubspot.tickets" and c[3] != "source_absent"]
    assert ("raw", "raw_hubspot.companies", "record_id", "expect_column_value_lengths_to_be_between") in kept


def test_a_source_that_said_nothing_of_the_date_stops_the_gate(warehouse: Warehouse, run_id: str) -> None:
    with landing("orders", "order_lines", DAY) as load:
        bind_company(load.connection, "Test", "Asia/Shanghai", "CNY")
        add_line(load, "1")
    record_absent("behavior", "events", DAY)
    stopped(warehouse, "raw", run_id, r"audit\.loads: .*Every source has loaded.*\"source\": \"crm\"")


def test_salesforce_has_to_say_all_or_nothing(warehouse: Warehouse, run_id: str) -> None:
    load_day(DAY)
    run_gate("raw", DAY, run_id)
    assert not [c for c in checks(warehouse, success=True) if str(c[1]).startswith("raw_salesforce")]
    with landing("salesforce", "accounts", DAY) as load:
        add_version(load, "0015g0000000001AAA")
    stopped(warehouse, "raw", run_id, r"audit\.loads: .*Every source has loaded.*\"source\": \"salesforce\"")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            {"customer_id": ""},
            r"raw_files\.order_lines\.customer_id: .* observed 1 of 100 rows, such as \[\"\"\]",
        ),
        (
            {"quantity": -2, "amount": -20},
            r"raw_files\.order_lines: .*Sales have a quantity above 0.*\"amount\": -20",
        ),
        # 2026-07-01 00:00 in Shanghai: the first instant after the day, though still June 30 in UTC.
        ({"ordered_at": datetime(2026, 6, 30, 16, tzinfo=UTC), "known_on": NEXT}, "dated after the day"),
    ],
)
def test_a_bad_order_line_stops_the_raw_gate(
    warehouse: Warehouse, run_id: str, line: dict[str, object], told: str
) -> None:
    load_day(DAY, **line)
    stopped(warehouse, "raw", run_id, told)


def test_every_expectation_of_rows_in_the_raw_suite_can_fail(warehouse: Warehouse, run_id: str) -> None:
    warehouse.rows("alter table raw_files.order_lines drop constraint order_lines_pkey")
    warehouse.rows("alter table raw_files.order_lines drop constraint order_lines_line_type_check")
    with landing("orders", "order_lines", DAY) as load:
        bind_company(load.connection, "Test", "Asia/Shanghai", "CNY")
        for number, line in enumerate(
            [
                {"order_id": ""},
                {"product_id": ""},
                {"customer_id": ""},
                {"unit_price": 0},
                {"currency": "rmb"},
                {"line_type": "return"},
                {"line_type": "gift"},
                {"ordered_at": datetime(2026, 6, 30, 16, tzinfo=UTC)},
                {"known_on": date(2026, 6, 29)},
            ]
        ):
            add_line(load, str(number), **line)
        add_line(load, "0")
    bad_properties = {
        "companies": {},
        "contacts": {"hs_email_optout": "maybe"},
        "deals": {
            "amount": "a lot",
            "deal_currency_code": "rmb",
            "hs_is_closed_won": "soon",
            "closedate": "soon",
        },
        "tickets": {"hs_ticket_priority": "WHENEVER", "closed_date": "30.6.2026"},
        "feedback_submissions": {
            "hs_survey_type": "NPS",
            "hs_value": "11",
            "hs_submission_timestamp": "today",
        },
    }
    bad_salesforce_properties = {
        "accounts": {},
        "contacts": {"HasOptedOutOfEmail": "maybe"},
        "contact_roles": {"ContactId": "1"},
        "opportunities": {
            "Amount": "a lot",
            "CurrencyIsoCode": "rmb",
            "IsWon": "soon",
            "CloseDate": "30.6.2026",
        },
        "cases": {"ClosedDate": "30.6.2026"},
    }
    bad_bottlecrm_properties = {
        "accounts": {"country": "Norway"},
        "contacts": {"do_not_call": "maybe"},
        "opportunities": {
            "amount": "a lot",
            "currency": "rmb",
            "stage_kind": "soon",
            "closed_on": "30.6.2026",
        },
        "tickets": {"priority": "HIGH", "closed_on": "30.6.2026", "resolved_at": "2026-06-30"},
    }
    bad = [("crm", "raw_hubspot", *each) for each in bad_properties.items()]
    bad += [("salesforce", "raw_salesforce", *each) for each in bad_salesforce_properties.items()]
    bad += [("bottlecrm", "raw_bottlecrm", *each) for each in bad_bottlecrm_properties.items()]
    for source, schema, entity, properties in bad:
        warehouse.rows(f"alter table {schema}.{entity} drop constraint {entity}_pkey")
        with landing(source, entity, DAY) as load:
            add_version(load, "", properties=properties)
            add_version(load, "2", owner="", known_on=NEXT)
            add_version(load, "2")
            add_version(load, "3", valid_from=datetime(2026, 6, 30, 16, tzinfo=UTC))
            if entity == "feedback_submissions":
                add_version(load, "4", properties={"hs_survey_type": "CSAT", "hs_value": "8"})
    with landing("behavior", "events", DAY) as load:
        for number, event in enumerate(
            [
                {"event_name": ""},
                {"customer_id": ""},
                {"duration_s": -1},
                {"event_at": datetime(2026, 6, 30, 16, tzinfo=UTC)},
                {"known_on": date(2026, 6, 29)},
            ]
        ):
            add_event(load, number, **event)
        load.rows_new -= 1  # one more than its books say
        load.rows_in -= 1
    with pytest.raises(GateFailed):
        run_gate("raw", DAY, run_id)
    failed, every = failed_and_all(warehouse)
    assert {check for check in every - failed if check[0] != "audit.loads"} == set()


def test_the_last_instant_of_the_day_passes(warehouse: Warehouse, run_id: str) -> None:
    load_day(DAY, ordered_at=datetime(2026, 6, 30, 15, 59, 59, 999999, tzinfo=UTC))
    run_gate("raw", DAY, run_id)


@pytest.mark.parametrize(("quarantined", "passes"), [(5, True), (6, False)])
def test_more_quarantined_rows_than_the_limit_stop_the_raw_gate(
    warehouse: Warehouse, run_id: str, quarantined: int, passes: bool
) -> None:
    load_day(DAY, quarantined=quarantined, lines=100 - quarantined)  # 5 of 100 is the limit itself
    if passes:
        run_gate("raw", DAY, run_id)
    else:
        stopped(
            warehouse,
            "raw",
            run_id,
            r'observed 1 rows, .*"quarantined_share": 0?\.06',
        )


def test_replayed_rows_leave_the_share_and_the_rows_of_the_replay_are_checked(
    warehouse: Warehouse, run_id: str
) -> None:
    load_day(DAY, quarantined=6, lines=94)
    with landing("orders", "order_lines", DAY, "replayed") as load:
        add_line(load, "replayed", order_id="")
        load.connection.execute("update audit.loads set rows_replayed = 1 where rows_quarantined = 6")
        load.rows_in += 1  # of two rows one is refused again: no share of a load's
        load.reasons["price_not_positive"] += 1
    stopped(warehouse, "raw", run_id, "1 of .* checks failed: raw_files.order_lines.order_id")


def test_a_replay_is_no_load_of_the_date(warehouse: Warehouse, run_id: str) -> None:
    load_day(DAY)
    warehouse.rows("update audit.loads set status = 'replayed' where source = 'orders'")
    stopped(warehouse, "raw", run_id, '"source": "orders", "entity": "order_lines"')


@pytest.mark.parametrize(("quarantined", "passes"), [(1, True), (2, False)])
def test_one_refused_row_among_a_few_is_no_share_and_two_are(
    warehouse: Warehouse, run_id: str, quarantined: int, passes: bool
) -> None:
    load_day(DAY, quarantined=quarantined, lines=3)
    if passes:
        run_gate("raw", DAY, run_id)
    else:
        stopped(warehouse, "raw", run_id, "quarantined_share")


def test_a_bad_load_stops_later_days_until_its_rows_are_corrected(warehouse: Warehouse, run_id: str) -> None:
    load_day(DAY, order_id="")
    stopped(warehouse, "raw", run_id, "order_id")
    later = begin_run_after(DAY, NEXT)
    load_day(NEXT)
    with pytest.raises(GateFailed, match="order_id"):
        run_gate("raw", NEXT, later)
    with landing("orders", "order_lines", NEXT) as load:
        add_line(load, f"{DAY} 0", order_id="O9")
    run_gate("raw", NEXT, later)


def test_a_load_that_passed_is_not_read_again(warehouse: Warehouse, run_id: str) -> None:
    load_day(DAY)
    run_gate("raw", DAY, run_id)
    later = begin_run_after(DAY, NEXT)
    load_day(NEXT, lines=7)
    run_gate("raw", NEXT, later)
    assert (
        warehouse.value(
            "select observed->>'element_count' from audit.checks where run_id = %s and column_name = 'line_type'",
            later,
        )
        == "7"
    )


def begin_run_after(failed: date, as_of: date) -> str:
    from include.warehouse.lock import fail_run

    fail_run(failed, "stopped")
    return begin_run(as_of, wait_s=0)


def test_the_line_names_the_first_failures_and_counts_the_rest(warehouse: Warehouse, run_id: str) -> None:
    load_day(DAY)
    make_candidate(run_id, DAY)
    warehouse.rows(
        "update candidate.customer_360 set tier = 'Z', currency = 'USD', days_since_last_order = -1"
    )
    warehouse.rows("update candidate.company_summary set accounts = 1")
    with pytest.raises(
        GateFailed, match=r"[5-9] of \d+ checks failed: .*; and \d more\. What is published stands"
    ):
        run_gate("published", DAY, run_id)


def test_a_gate_of_a_run_without_the_lock_is_refused(warehouse: Warehouse, run_id: str) -> None:
    load_day(DAY)
    winner = begin_run(DAY)
    with pytest.raises(StratumError, match=f"not held by run {run_id}: it is held by run {winner}"):
        run_gate("raw", DAY, run_id)
    assert warehouse.value("select count(*) from audit.checks") == 0


def test_an_unknown_gate_and_an_empty_warehouse_are_told(warehouse: Warehouse, run_id: str) -> None:
    with pytest.raises(StratumError, match="holds no company yet"):
        run_gate("raw", DAY, run_id)
    load_day(DAY)
    with pytest.raises(StratumError, match="There is no gate 'moods'"):
        run_gate("moods", DAY, run_id)


def test_a_password_with_signs_that_mean_something_elsewhere_works(
    warehouse: Warehouse, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_day(DAY)
    warehouse.rows("create role odd login password 'a$HOME%b' in role stratum_transformer")
    url = warehouse.role_urls["transformer"].replace(
        "stratum_transformer:password-of-transformer", "odd:a$HOME%25b"
    )
    monkeypatch.setenv("AIRFLOW_CONN_STRATUM_TRANSFORMER", url)
    run_gate("raw", DAY, run_id)


def test_checks_are_append_only_for_the_roles_that_write_them(warehouse: Warehouse) -> None:
    for role in ("transformer", "publisher"):
        for statement in ("delete from audit.checks", "update audit.checks set success = true"):
            with pytest.raises(Exception, match="permission denied"), connect(role) as connection:
                connection.execute(statement)


def test_files_have_to_say_all_or_nothing_and_their_records_are_checked(
    warehouse: Warehouse, run_id: str
) -> None:
    load_day(DAY)
    told_late = {"closed_at": "2026-02-01T00:00:00.000000Z", "stage_kind": "perhaps", "amount": "much"}
    with landing("records", "opportunities", DAY) as load:
        add_version(load, "o1", properties=told_late)
    with landing("records", "survey_answers", DAY) as load:
        add_version(load, "a1", properties={"survey_type": "NPS", "score": "10.5000"})
    stopped(warehouse, "raw", run_id, r"audit\.loads: .*Every source has loaded.*\"source\": \"records\"")
    failed, _ = failed_and_all(warehouse)
    assert {(table, column) for table, column, *_ in failed if table != "audit.loads"} == {
        ("raw_files.opportunities", "amount"),
        ("raw_files.opportunities", "stage_kind"),
        ("raw_files.opportunities", None),
        ("raw_files.survey_answers", None),
    }
    assert ("raw", "raw_files.customers") not in {check[:2] for check in checks(warehouse, success=True)}
