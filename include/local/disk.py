"""Whether there is room to work: a full disk shows as anything but a full disk."""

import shutil
from pathlib import Path

from include.errors import StratumError

MIN_BYTES = 64 * 1024**2
"""Below this neither a task's log nor PostgreSQL's next segment of 16 MB is sure to be written."""


def assert_room(home: Path) -> None:
    """Raise StratumError, naming the disk, where the disk that holds `home` is full."""
    free = shutil.disk_usage(home).free
    if free < MIN_BYTES:
        raise StratumError(
            f"The disk of {home} is full ({free // 1024**2} MB free). Nothing half-written stays. Make room "
            "(docs/runbooks/disk.md), then `make up` and run the date again."
        )
