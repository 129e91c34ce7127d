"""The simulated company's events are the same on every machine, and their use of the site says who is leaving."""

import csv
import gzip
import hashlib
from collections import defaultdict
from datetime import date, timedelta
from pathlib import Path

import pytest

from include.simulate import events
from include.simulate.company import DAYS, FIRST_DAY, LAST_DAY, customers
from include.simulate.events import FEATURES, FLOW, events_csv, write_events

EVENTS_SHA256 = "b51548756750137812afc37d64ed0deb35e6822b26a36a821493b19761cc5458"


@pytest.fixture(scope="module")
def months() -> dict[str, str]:
    return events_csv()


@pytest.fixture(scope="module")
def rows(months: dict[str, str]) -> list[dict[str, str]]:
    return [row for text in months.values() for row in csv.DictReader(text.splitlines())]


@pytest.fixture(scope="module")
def sessions(rows: list[dict[str, str]]) -> dict[str, list[int]]:
    """Customer → the days (0 = FIRST_DAY) on which it logged in."""
    found: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        if row["event"] == "login" and row["account_no"] and row["occurred_at"] != "unknown":
            found[row["account_no"]].append((date.fromisoformat(row["occurred_at"][:10]) - FIRST_DAY).days)
    return found


def test_the_rows_are_pinned(months: dict[str, str]) -> None:
    assert hashlib.sha256("".join(months.values()).encode()).hexdigest() == EVENTS_SHA256
    assert events_csv() == months


def test_about_160_thousand_events_lie_in_one_file_for_each_of_24_months(
    months: dict[str, str], rows: list[dict[str, str]]
) -> None:
    assert (len(months), min(months), max(months)) == (24, "2024-07", "2026-06")
    assert 150_000 <= len(rows) <= 200_000
    for month, text in months.items():
        times = [row["occurred_at"] for row in csv.DictReader(text.splitlines())]
        known = [at for at in times if at != "unknown"]
        assert {at[:7] for at in known} == {month}
        assert known == sorted(known)
    assert (
        max(row["occurred_at"] for row in rows if row["occurred_at"] != "unknown")[:10]
        <= LAST_DAY.isoformat()
    )


def test_an_account_that_is_about_to_stop_uses_the_site_less_and_less(sessions: dict[str, list[int]]) -> None:
    before, fading, last, after = 0, 0, 0, 0
    leavers = [one for one in customers() if one.last_day < DAYS - 1 and one.last_day - one.first_day > 200]
    assert len(leavers) > 50
    for one in leavers:
        left = [one.last_day - day for day in sessions.get(one.number, [])]
        before += sum(90 <= days < 180 for days in left)
        fading += sum(0 <= days < 90 for days in left)
        last += sum(0 <= days < 30 for days in left)
        after += sum(days < 0 for days in left)
    assert fading < 0.7 * before
    assert last < 0.25 * fading
    assert after == 0


def test_dormant_accounts_do_nothing_in_the_last_year_and_those_that_stay_go_on(
    sessions: dict[str, list[int]],
) -> None:
    staying = 0
    for one in customers():
        last_year = sum(day > DAYS - 366 for day in sessions.get(one.number, []))
        if one.last_day <= DAYS - 366:
            assert last_year == 0
        elif one.last_day == DAYS - 1:
            staying += last_year > 0
    assert staying > 350


def test_some_accounts_never_log_in(sessions: dict[str, list[int]]) -> None:
    assert 0.05 < 1 - len(sessions) / len(customers()) < 0.12


def test_a_quiet_month_alone_proves_nothing(sessions: dict[str, list[int]]) -> None:
    """Of the accounts that stay and use the site, some make a month without a login."""
    staying = [one.number for one in customers() if one.last_day == DAYS - 1 and one.number in sessions]
    quiet = sum(not any(DAYS - 90 <= day < DAYS - 60 for day in sessions[number]) for number in staying)
    assert 0.02 < quiet / len(staying) < 0.3


def test_features_are_those_named_and_a_login_alone_bears_a_duration(rows: list[dict[str, str]]) -> None:
    assert {row["feature"] for row in rows if row["event"] == "feature_use"} == set(FEATURES)
    assert not any(row["feature"] for row in rows if row["event"] in ("login", "page_view", *FLOW))
    assert all(0 < int(row["seconds"]) < 3600 for row in rows if row["event"] == "login")
    assert not any(row["seconds"] for row in rows if row["event"] not in ("login", ""))


def test_a_purchase_goes_through_its_steps_and_some_stop_at_the_comparison(
    rows: list[dict[str, str]],
) -> None:
    steps: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row["event"] in FLOW:
            steps[row["session_no"]].add(row["event"])
    ends = [max(map(FLOW.index, reached)) for reached in steps.values()]
    shares = [ends.count(place) / len(ends) for place in range(len(FLOW))]
    assert shares[3] > 0.3  # bought
    assert shares[1] > 0.1
    assert shares[2] > shares[1]


def test_the_faults_come_at_their_rates(rows: list[dict[str, str]]) -> None:
    total = len(rows)
    assert 0.0005 < sum(row["occurred_at"] == "unknown" for row in rows) / total < 0.002
    assert 0.0005 < sum(row["event"] == "" for row in rows) / total < 0.002
    assert 0.005 < sum(row["account_no"] == "" for row in rows) / total < 0.02
    repeated = total - len({tuple(row.values()) for row in rows})
    assert 0.002 < repeated / total < 0.004


def test_files_that_stand_are_left_alone_and_a_damaged_one_is_written_again(
    tmp_path: Path, months: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(events, "events_csv", lambda: made.append(1) or months)
    write_events(tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(written) == [*(f"{month}.csv.gz" for month in months), "manifest.json"]
    assert gzip.decompress(written["2025-03.csv.gz"]).decode() == months["2025-03"]
    write_events(tmp_path)
    assert len(made) == 1
    (tmp_path / "2025-03.csv.gz").write_bytes(b"cut short")
    (tmp_path / "2025-04.csv.gz").unlink()
    (tmp_path / "2023-01.csv.gz").write_bytes(b"not ours")
    write_events(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == written
    monkeypatch.setattr(events, "_maker", lambda: "another version of the code")
    write_events(tmp_path)
    assert len(made) == 3


def test_no_event_is_dated_before_its_account_was_there(rows: list[dict[str, str]]) -> None:
    first = {one.number: (FIRST_DAY + timedelta(days=one.first_day - 3)).isoformat() for one in customers()}
    for row in rows:
        if row["account_no"] and row["occurred_at"] != "unknown":
            assert row["occurred_at"][:10] >= first[row["account_no"]]
