"""How PyMySQL turns the values of MySQL and MariaDB into Python's, where its own way would lose something.

The session is in UTC (see databases.reading), so that a `timestamp`, which is an instant, keeps its instant in the hour
that daylight saving time repeats; a `datetime` is what it says, without a zone.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pymysql.constants import FIELD_TYPE
from pymysql.converters import conversions, convert_date, convert_datetime

ZERO = "0000-00-00"


def _instant(given: Any) -> Any:
    moment = _moment(given)
    return moment.replace(tzinfo=UTC) if isinstance(moment, datetime) else moment


def _moment(given: Any) -> Any:
    return _no_zero(convert_datetime(given))


def _day(given: Any) -> Any:
    return _no_zero(convert_date(given))


def _no_zero(value: Any) -> Any:
    # What is no date, such as 2024-02-00, stays text, and is refused with its row.
    return None if isinstance(value, str) and value.startswith(ZERO) else value


def _bits(given: bytes) -> int:
    return int.from_bytes(given, "big")


DECODERS: dict[Any, Callable[..., Any]] = {
    **conversions,
    FIELD_TYPE.TIMESTAMP: _instant,
    FIELD_TYPE.DATETIME: _moment,
    FIELD_TYPE.DATE: _day,
    FIELD_TYPE.BIT: _bits,
}
"""PyMySQL's `conv`: a timestamp with its zone, a zero date as null, bits as a number; the rest as PyMySQL has it."""
