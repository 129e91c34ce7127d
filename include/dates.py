"""The as-of date: the only place that turns a partition key into a date and a date into instants."""

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from include.errors import StratumError

KEY_FORMAT = "%Y-%m-%d"


def parse_as_of(text: str | None) -> date:
    """Return the as-of date a partition key such as `2026-11-20` names.

    Raises StratumError where the key is missing or is not a calendar date in that form.
    """
    if not text:
        raise StratumError(
            "The run has no partition key, so no as-of date. Start it with `stratum run --as-of YYYY-MM-DD`, "
            'or over REST with {"logical_date": null, "partition_key": "YYYY-MM-DD"}.'
        )
    try:
        parsed = datetime.strptime(text, KEY_FORMAT).date()
    except ValueError as error:
        raise StratumError(f"'{text}' is not an as-of date: write it as YYYY-MM-DD.") from error
    if parsed.strftime(KEY_FORMAT) != text:
        raise StratumError(f"'{text}' is not an as-of date: write it as YYYY-MM-DD.")
    return parsed


def as_of_of(context: Mapping[str, Any]) -> date:
    """Return the as-of date of an Airflow task's context (its run's partition key)."""
    return parse_as_of(context["dag_run"].partition_key)


def zone(name: str) -> ZoneInfo:
    """Return the time zone of an IANA name; raises StratumError for an unknown one."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise StratumError(f"'{name}' is not a time zone: use an IANA name such as Asia/Shanghai.") from error


def day_end(as_of: date, timezone: str) -> datetime:
    """Return the first instant after the day `as_of` in `timezone`; data of the day lies before it."""
    return datetime.combine(as_of + timedelta(days=1), time(), tzinfo=zone(timezone))
