"""The short ways to an instant and to a day give what DuckDB's own conversion gives."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from include.sources.files import open_engine
from include.sources.fixed_offsets import fixed_since, instant, local_day

UNTIL = datetime(2026, 3, 30, tzinfo=UTC)
ZONES = ["UTC", "Asia/Shanghai", "Europe/London", "America/Sao_Paulo"]
HOURS = 24 * 365 * 45


@pytest.mark.parametrize("timezone", ZONES)
def test_days_and_instants_are_those_of_the_time_zone_at_every_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timezone: str
) -> None:
    monkeypatch.setenv("STRATUM_HOME", str(tmp_path))
    slow_at, slow_day = "try_cast(t as timestamptz)", f"timezone('{timezone}', moment)::date"
    with open_engine(timezone) as engine:
        ((hours, other_instants, other_days, quick),) = engine.execute(f"""
select count(*), count(*) filter (where moment is distinct from {instant("t", timezone, UNTIL, slow_at)}),
    count(*) filter (where {slow_day} is distinct from {local_day("moment", timezone, UNTIL, slow_day)}),
    count(*) filter (where {local_day("moment", timezone, UNTIL, "null")} is not null)
from (select t, {slow_at} as moment from (
    select timestamp '1985-01-01' + to_hours(i) + to_minutes(i % 60) as t from range({HOURS}) as r(i)
))""").fetchall()
    assert (hours, other_instants, other_days) == (HOURS, 0, 0)
    since = fixed_since(timezone, UNTIL)[0]
    assert quick >= (UNTIL - since - timedelta(days=1)) // timedelta(hours=1)  # the short way was gone


def test_a_zone_is_fixed_since_the_day_after_its_last_change() -> None:
    since, offset = fixed_since("Asia/Shanghai", UNTIL)
    assert (since.year, offset) == (1991, timedelta(hours=8))
    assert fixed_since("Europe/London", UNTIL) == (UNTIL, timedelta(hours=1))  # it changed the day before
