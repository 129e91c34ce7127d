"""What the commands share."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import time_machine

from include.commands.common import assert_over, read_sources
from include.errors import StratumError
from include.settings import Settings


def test_a_day_is_over_when_it_is_over_in_the_companys_time_zone() -> None:
    day = date(2026, 11, 22)
    with time_machine.travel(datetime(2026, 11, 22, 18, tzinfo=UTC)):
        assert_over(day, "Asia/Shanghai")
        with pytest.raises(StratumError, match="2026-11-22 is not over yet in UTC"):
            assert_over(day, "UTC")


def test_a_home_with_an_older_versions_company_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRATUM_HOME", str(tmp_path))
    (tmp_path / "simulated").mkdir()
    (tmp_path / "simulated" / "orders.csv").write_text("order_no\n")
    with pytest.raises(StratumError, match=r"another version of Stratum\. Begin anew with `make clean`"):
        read_sources(Settings(), None)
    assert (tmp_path / "simulated" / "orders.csv").exists()
