"""What the commands share."""

from datetime import UTC, date, datetime

import pytest
import time_machine

from include.commands.common import assert_over
from include.errors import StratumError


def test_a_day_is_over_when_it_is_over_in_the_companys_time_zone() -> None:
    day = date(2026, 11, 22)
    with time_machine.travel(datetime(2026, 11, 22, 18, tzinfo=UTC)):
        assert_over(day, "Asia/Shanghai")
        with pytest.raises(StratumError, match="2026-11-22 is not over yet in UTC"):
            assert_over(day, "UTC")
