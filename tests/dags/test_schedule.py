"""When the ingests run, and for which date."""

import pendulum
import pytest

from include.settings import get_settings


@pytest.fixture
def schedule(monkeypatch: pytest.MonkeyPatch):
    """The ingests' timetable under a setting, as the scheduler reads it."""

    def of(**variables: str):
        from airflow.serialization.decoders import decode_timetable
        from airflow.serialization.encoders import encode_timetable

        from include.dag_support import ingest_schedule

        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()
        return decode_timetable(encode_timetable(ingest_schedule()))

    yield of
    monkeypatch.undo()
    get_settings.cache_clear()


def test_without_the_setting_nothing_is_scheduled(schedule) -> None:
    timetable = schedule(STRATUM_SCHEDULE="0")
    assert not timetable.can_be_scheduled
    assert timetable.partitioned_at_runtime


def test_a_scheduled_run_is_of_the_day_that_is_over_in_the_companys_time_zone(schedule) -> None:
    timetable = schedule(STRATUM_SCHEDULE="1", STRATUM_TIMEZONE="Asia/Shanghai")
    five_in_shanghai = pendulum.datetime(2026, 11, 20, 21, tz="UTC")  # 05:00 on the 21st
    _, key = timetable._get_partition_info(five_in_shanghai)
    assert key == "2026-11-20"
