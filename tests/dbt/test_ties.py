"""Whose a CRM record is counts from the day on which that was known: what is written later changes no past."""

from datetime import date

import pytest

from include.dbt import build
from tests.conftest import Warehouse
from tests.dbt.raw_rows import Line, Orders, Version, at, land_versions
from tests.dbt.selections import FEATURES
from tests.dbt.test_identity import land_customers

JANUARY, MARCH, APRIL, MAY, JUNE = (date(2026, 1, 10), *(date(2026, m, 30) for m in (3, 4, 5, 6)))
KNOWN, LATER = date(2026, 3, 31), JUNE


def land_what_was_known() -> None:
    """What the systems say by KNOWN: six customers, and companies of which each has one record of every kind."""
    Orders().land(KNOWN, [Line(f"{n}", f"o{n}", f"c{n}", at(JANUARY)) for n in range(1, 9)])
    land_customers(
        KNOWN, ("c3", JANUARY, {}), ("c6", JANUARY, {"domain": "six.example"}), ("c7", JANUARY, {})
    )
    companies = [
        Version("1", None, at(JANUARY), {"name": "typed in later"}),
        Version("2", "c2", at(JANUARY), {"name": "tied from the beginning"}),
        Version("3", None, at(JANUARY), {"name": "domain", "domain": "three.example"}),
        Version("4", "c4", at(JANUARY), {"name": "of another later"}),
        Version("5", None, at(JANUARY), {"name": "one of two later", "domain": "six.example"}),
        Version("6", None, at(JANUARY), {"name": "merged later"}),
        Version("7", None, at(JANUARY), {"name": "took 8 in", "hs_merged_object_ids": "8"}),
        Version("8", None, at(JANUARY), {"name": "merged already"}),
    ]
    land_versions(KNOWN, "companies", companies)
    for entity, properties in {
        "contacts": {},
        "tickets": {"createdate": at(MARCH).isoformat()},
        "deals": {"dealstage": "contractsent"},
        "feedback_submissions": {
            "hs_survey_type": "NPS", "hs_value": "9", "hs_submission_timestamp": at(MARCH).isoformat(),
        },
    }.items():  # fmt: skip
        rows = [Version(each.record_id, each.record_id, at(JANUARY), dict(properties)) for each in companies]
        land_versions(KNOWN, entity, rows)


def land_what_was_written_later() -> None:
    """Numbers that are typed in or corrected, a customer's domain, a second customer of a domain, a merge."""
    land_customers(LATER, ("c3", APRIL, {"domain": "three.example"}), ("c7", MAY, {"domain": "six.example"}))
    versions = [
        Version("1", "c1", at(MAY), {"name": "typed in later"}),
        Version("4", "c5", at(MAY), {"name": "of another later"}),
        Version("2", "c2", at(APRIL), {"name": "tied", "hs_merged_object_ids": "6"}),
        Version("7", "c8", at(MAY), {"name": "took 8 in", "hs_merged_object_ids": "8"}),
    ]
    land_versions(LATER, "companies", versions)


def run(as_of: date, *, full_refresh: bool = False) -> None:
    build("staging", as_of, f"run-{as_of}")
    build("marts", as_of, f"run-{as_of}", full_refresh=full_refresh, only=FEATURES)


def features(warehouse: Warehouse, until: date = LATER) -> list[tuple]:
    return warehouse.rows(
        "select * from marts.account_features where as_of_date <= %s order by as_of_date, account_id", until
    )


def contacts(warehouse: Warehouse, day: date) -> dict[str, int]:
    """Return how many contacts each account has on a day; accounts without any are left out."""
    return dict(
        warehouse.rows(
            "select account_id, contacts from marts.account_features where as_of_date = %s and contacts > 0",
            day,
        )
    )


@pytest.fixture(scope="module")
def built(module_warehouse: Warehouse) -> tuple[Warehouse, list[tuple]]:
    """The company as of LATER, and the features that were there as of KNOWN, before anything was written later."""
    land_what_was_known()
    run(KNOWN)
    known = features(module_warehouse, KNOWN)
    land_what_was_written_later()
    run(LATER)
    return module_warehouse, known


def test_what_is_written_into_a_record_later_changes_no_feature_of_the_past(
    built: tuple[Warehouse, list[tuple]],
) -> None:
    warehouse, known = built
    assert len(known) == 8 * 3
    assert contacts(warehouse, KNOWN) == {"c2": 1, "c4": 1, "c6": 1}
    assert features(warehouse, KNOWN) == known


def test_from_the_day_it_is_known_a_tie_brings_all_that_hangs_on_the_record(
    built: tuple[Warehouse, list[tuple]],
) -> None:
    warehouse, _ = built
    assert contacts(warehouse, APRIL) == {"c2": 2, "c3": 1, "c4": 1, "c6": 1}
    assert contacts(warehouse, LATER) == {"c1": 1, "c2": 2, "c3": 1, "c5": 1, "c8": 2}
    told = "select account_id from marts.account_features where as_of_date = %s and ({}) order by 1"
    for feature in ("open_deals > 0", "nps_latest is not null"):
        assert warehouse.rows(told.format(feature), APRIL) == [("c2",), ("c3",), ("c4",), ("c6",)], feature
    since = warehouse.rows(
        "select source_account_id, account_id, matched_by, valid_from_date from identity.int_account_crosswalk "
        "where source_system = 'hubspot' and source_account_id in ('1', '3', '5') "
        "order by 1, 4 nulls first"
    )
    assert since == [
        ("1", "hubspot:1", "own_id", None),
        ("1", "c1", "account_number", MAY),
        ("3", "hubspot:3", "own_id", None),
        ("3", "c3", "domain", APRIL),
        ("5", "hubspot:5", "own_id", None),
        ("5", "c6", "domain", JANUARY),
        ("5", "hubspot:5", "own_id", MAY),
    ]


def test_a_full_rebuild_leaves_what_the_builds_of_two_dates_leave(
    built: tuple[Warehouse, list[tuple]],
) -> None:
    warehouse, _ = built
    by_date = features(warehouse)
    run(LATER, full_refresh=True)
    assert features(warehouse) == by_date
