"""The profile over several dates: before the CRM, with nothing loaded in time, and tags taken over from run to run."""

from datetime import date

import pytest

from include.dbt import build
from include.sources.loads import record_absent
from tests.conftest import Warehouse
from tests.dbt import profile_company
from tests.dbt.profile_company import AS_OF, Company, ago

pytestmark = [pytest.mark.extended, pytest.mark.timeout(1800)]
BEFORE_CRM = ago(850)


@pytest.fixture(scope="module")
def company() -> Company:
    return profile_company.make(seed=11)


@pytest.fixture(scope="module")
def landed(module_warehouse: Warehouse, company: Company) -> Warehouse:
    profile_company.land(company)
    record_absent("crm", ["tickets"], AS_OF)
    return module_warehouse


def _build(as_of: date, *layers: str) -> None:
    for layer in ("staging", "marts", *layers):
        build(layer, as_of, f"run-{as_of}")


def test_before_the_crm_nothing_is_known_and_nothing_is_zero(landed: Warehouse, company: Company) -> None:
    _build(BEFORE_CRM, "published")
    reach = landed.rows("select contacts, can_be_mailed, no_mail_reason from marts.account_reach")
    assert set(reach) == {(None, None, "no source has told of contacts yet")}
    chains = landed.rows(
        "select contacts, is_covered, missing_message, no_value_reason from marts.account_decision_chains"
    )
    assert set(chains) == {(None, None, None, "no source has told of contacts yet")}
    lists = {name for (name,) in landed.rows("select list from candidate.operating_list")}
    assert lists
    assert not lists & {"missing decision role", "unsigned contracts", "churn risk"}
    report = landed.rows("select distinct month, logins, no_usage_reason from candidate.usage_report")
    assert report == [(date(2024, 2, 1), None, "no event of the product is loaded up to the month's end")]
    newest = max(line.ordered_at for line in company.lines if line.day <= BEFORE_CRM)
    late = (BEFORE_CRM - newest.astimezone(profile_company.at(AS_OF).tzinfo).date()).days
    assert late > 3
    assert landed.rows(
        "select newest_row_at, rows_landed, lateness_days, is_late, reason from candidate.freshness "
        "where entity = 'order_lines'"
    ) == [(newest, 0, late, True, "no load up to the date")]


def test_tags_say_the_same_whether_taken_over_or_read_from_all_dates(landed: Warehouse) -> None:
    taken_over = {}
    for as_of in (ago(40), ago(1), AS_OF):
        _build(as_of)
        profile_company.check_tags(landed, as_of)
        taken_over[as_of] = _tags(landed)
    assert landed.value("select count(distinct set_on) from marts.account_tags") > 3
    _build(AS_OF)
    assert _tags(landed) == taken_over[AS_OF]
    landed.rows("delete from marts.account_tags")
    _build(AS_OF)
    assert {row for row in _tags(landed) if row[0] == AS_OF} == {
        row for row in taken_over[AS_OF] if row[0] == AS_OF
    }


def _tags(warehouse: Warehouse) -> list[tuple]:
    return warehouse.rows(
        "select as_of_date, account_id, tag, tag_value, set_on from marts.account_tags order by 1, 2, 3"
    )
