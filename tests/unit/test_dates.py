"""The as-of date: what passes for one, and when its day ends."""

from datetime import UTC, date, datetime

import pytest

from include.dates import day_end, parse_as_of, zone
from include.errors import StratumError


def test_a_key_is_a_date() -> None:
    assert parse_as_of("2026-11-20") == date(2026, 11, 20)


@pytest.mark.parametrize(
    "text", ["yesterday", "2026-13-01", "2026-02-30", "2026-1-5", "2026-11-20T00:00:00", " 2026-11-20"]
)
def test_a_word_that_is_no_date_in_the_one_form_is_refused(text: str) -> None:
    with pytest.raises(StratumError, match="YYYY-MM-DD"):
        parse_as_of(text)


@pytest.mark.parametrize("text", [None, ""])
def test_a_run_without_a_key_says_how_to_start_one(text: str | None) -> None:
    with pytest.raises(StratumError, match="partition_key"):
        parse_as_of(text)


@pytest.mark.parametrize(
    ("day", "timezone", "end"),
    [
        (date(2026, 6, 30), "Asia/Shanghai", datetime(2026, 6, 30, 16, tzinfo=UTC)),
        (date(2026, 6, 30), "UTC", datetime(2026, 7, 1, tzinfo=UTC)),
        (
            date(2026, 3, 28),
            "Europe/London",
            datetime(2026, 3, 29, 0, tzinfo=UTC),
        ),  # clocks change on the 29th
        (date(2026, 3, 29), "Europe/London", datetime(2026, 3, 29, 23, tzinfo=UTC)),
    ],
)
def test_a_day_ends_where_the_company_is(day: date, timezone: str, end: datetime) -> None:
    assert day_end(day, timezone) == end


def test_an_unknown_zone_is_named() -> None:
    with pytest.raises(StratumError, match="'Mars/Olympus'"):
        zone("Mars/Olympus")
