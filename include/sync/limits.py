"""One limiter per CRM organisation, shared by all tasks through the warehouse."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from include.warehouse.connect import connect


class Limiter:
    """Lets through at most `burst` calls per `window_s` seconds of one organisation, over all processes.

    `clock` gives seconds since 1970 and `sleep` waits; both are injected by tests.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        org: str,
        burst: int,
        window_s: float,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.connection = connection
        self.org = org
        self.burst = burst
        self.window_s = window_s
        self.clock = clock
        self.sleep = sleep
        connection.execute("insert into sync.call_windows (org) values (%s) on conflict do nothing", [org])

    def take(self) -> None:
        """Return when the next call may be made, and count it."""
        while (wait := self._reserve()) > 0:
            self.sleep(wait)

    def _reserve(self) -> float:
        """Count a call and return 0, or return the seconds until there may be room for it."""
        with self.connection.transaction():
            # The row lock makes the tasks of all processes queue here.
            row = self.connection.execute(
                "select calls, blocked_until from sync.call_windows where org = %s for update", [self.org]
            ).fetchone()
            calls, blocked_until = row  # type: ignore[misc]
            now = self.clock()
            if blocked_until > now:
                return blocked_until - now
            recent = [call for call in calls if call > now - self.window_s]
            if len(recent) >= self.burst:
                return recent[0] + self.window_s - now
            self.connection.execute(
                "update sync.call_windows set calls = %s where org = %s", [[*recent, now], self.org]
            )
            return 0.0

    def block(self, seconds: float) -> None:
        """Let no task call for so many seconds: the CRM said it has had enough."""
        self.connection.execute(
            "update sync.call_windows set blocked_until = greatest(blocked_until, %s) where org = %s",
            [self.clock() + seconds, self.org],
        )


class Alone:
    """Waits where the CRM asks for it, and counts nothing: for a handful of calls, where no warehouse is at hand."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        self.block = sleep

    def take(self) -> None:
        """Let the call be made."""


@contextmanager
def limiter(
    role: str,
    org: str,
    burst: int,
    window_s: float,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Limiter]:
    """Open a limiter as a warehouse role (loader or syncer), on a connection of its own."""
    with connect(role) as connection:
        connection.autocommit = True
        yield Limiter(connection, org, burst, window_s, clock, sleep)
