"""Who is at work in a STRATUM_HOME, so that a command that ends never stops what another one uses."""

import fcntl
from pathlib import Path
from typing import IO


class InUse:
    """A lock that every command at work shares, and two marks: what is up is to stay, or was left for the last to stop.

    The system gives the lock of a process back when it ends, however it ends.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = folder / "in_use.lock"
        self._stays = folder / "stays_up"
        self._left = folder / "left_up"
        self._file: IO[bytes] | None = None

    def enter(self) -> None:
        """Count as at work from now on; waits while another command is stopping things."""
        if self._file is None:
            self._lock.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._lock.open("ab")
            fcntl.flock(self._file, fcntl.LOCK_SH)

    def is_alone(self) -> bool:
        """Tell whether nobody else is at work; where that is so, nobody may enter before `leave`.

        Two that ask at the same moment cannot both be refused: asking gives the own share back first.
        """
        if self._file is None:
            return False
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def share(self) -> None:
        """Let others in again after `is_alone`."""
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_SH)

    def leave(self) -> None:
        """Count as at work no more."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def keep(self, stays: bool) -> None:
        """Mark what is up as meant to stay (`stratum up`), or take that mark away."""
        if stays:
            self._stays.touch()
        else:
            self._stays.unlink(missing_ok=True)

    @property
    def stays(self) -> bool:
        """Whether what is up was started to stay."""
        return self._stays.exists()

    def leave_to_others(self) -> None:
        """Mark what this command started as to be stopped by the last one at work."""
        self._left.touch()

    @property
    def was_left(self) -> bool:
        """Whether a command that ended before left something for the last one to stop."""
        return self._left.exists()

    def forget(self) -> None:
        """Take both marks away: nothing is up any more."""
        self._stays.unlink(missing_ok=True)
        self._left.unlink(missing_ok=True)
