"""Commands at work at the same time: one that ends leaves the other what it started."""

from pathlib import Path

import pytest

from include.local.stack import Stack
from include.settings import Settings
from include.warehouse import embedded
from tests.conftest import free_port


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, postgres_port=free_port())


def test_the_last_command_at_work_stops_what_an_earlier_one_started(settings: Settings) -> None:
    first, second, third = (Stack(settings, print) for _ in range(3))
    try:
        assert first.start_server()
        assert not second.start_server()
        assert second.is_shared()
        first.down_started()
        assert embedded.is_running(first.cluster), "another command is at work"
        third.start_server()
        second.down_started()
        assert embedded.is_running(first.cluster)
        assert not third.is_shared()
        third.down_started()
        assert not embedded.is_running(first.cluster)
    finally:
        first.down()


def test_what_is_up_to_stay_is_not_stopped_by_the_command_that_started_it(settings: Settings) -> None:
    run, up = Stack(settings, print), Stack(settings, print)
    try:
        run.start_server()
        up.start_server()
        up.stay_up()
        up.in_use.leave()
        run.down_started()
        assert embedded.is_running(run.cluster)
        run.down()
        assert not embedded.is_running(run.cluster)
        # The mark went with it: what a later command starts, it stops.
        later = Stack(settings, print)
        later.start_server()
        later.down_started()
        assert not embedded.is_running(run.cluster)
    finally:
        run.down()


def test_a_command_alone_stops_what_it_started_and_nothing_else(settings: Settings) -> None:
    before, alone = Stack(settings, print), Stack(settings, print)
    try:
        before.start_server()
        before.in_use.leave()  # it was killed, and left nothing to the last one
        alone.start_server()
        alone.down_started()
        assert embedded.is_running(alone.cluster)
    finally:
        alone.down()


def test_an_airflow_that_others_run_is_not_marked_to_stay(tmp_path: Path) -> None:
    attached = Stack(Settings(home=tmp_path, airflow_url="http://127.0.0.1:1"), print)
    attached.stay_up()
    assert not attached.in_use.stays
    attached.down_started()
