"""SQL of instants and days that asks for no time zone as long as a zone keeps one offset.

DuckDB's own conversion looks every value up: a third of the time it takes to judge a row of events. The result is the
same; what lies before a zone's last change is converted as before.
"""

from datetime import UTC, datetime, timedelta

from include.dates import zone

LOOK_BACK_DAYS = 365 * 40


def fixed_since(timezone: str, until: datetime) -> tuple[datetime, timedelta]:
    """Return the instant since which a zone's offset is what it is at `until`, to the day, and that offset."""
    there = zone(timezone)
    offset = until.astimezone(there).utcoffset() or timedelta(0)
    since = until.astimezone(UTC)
    for _ in range(LOOK_BACK_DAYS):
        before = since - timedelta(days=1)
        if before.astimezone(there).utcoffset() != offset:
            break
        since = before
    return since, offset


def local_day(at: str, timezone: str, until: datetime, otherwise: str) -> str:
    """Return the SQL of the day of an instant (`at`, a timestamptz) in a zone; `otherwise` is that of other instants."""
    since, offset = fixed_since(timezone, until)
    return (
        f"case when {at} >= {_instant(since)} and {at} < {_instant(until)} "
        f"then make_timestamp(epoch_us({at}) + {_microseconds(offset)})::date else {otherwise} end"
    )


def instant(local: str, timezone: str, until: datetime, otherwise: str) -> str:
    """Return the SQL of the instant of a local time (`local`, a timestamp); `otherwise` is that of other times."""
    since, offset = fixed_since(timezone, until)
    # A day apart from the change of the offset, so that no local time is one that comes twice.
    first, end = (
        f"timestamp '{moment.astimezone(UTC) + offset:%Y-%m-%d %H:%M:%S}'"
        for moment in (since + timedelta(days=1), until)
    )
    return (
        f"case when {local} >= {first} and {local} < {end} "
        f"then make_timestamptz(epoch_us({local}) - {_microseconds(offset)}) else {otherwise} end"
    )


def _instant(moment: datetime) -> str:
    return f"timestamptz '{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}+00'"


def _microseconds(offset: timedelta) -> int:
    return offset // timedelta(microseconds=1)
