"""One limiter per CRM organisation, shared by all tasks through the warehouse: a burst, and a budget for the day."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
from psycopg.types.json import Jsonb

from include.sync.target import Refused
from include.warehouse.connect import connect

SHARE_OF_DAY = 0.5
"""Of the calls that a day allows an organisation, those that Stratum may make: others use its API too."""
HOURS = 24


class Limiter:
    """Lets through at most `burst` calls per `window_s` seconds of one organisation, over all processes.

    `burst` is None where the CRM has no such limit. `daily` is what a day allows the organisation until it says so
    itself (`learn`), None where no day is counted. `clock` gives seconds since 1970 and `sleep` waits; both are
    injected by tests.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        org: str,
        burst: int | None,
        window_s: float,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        daily: int | None = None,
    ) -> None:
        self.connection = connection
        self.org = org
        self.burst = burst
        self.window_s = window_s
        self.clock = clock
        self.sleep = sleep
        self.daily = daily
        self._learned: int | None = None
        connection.execute("insert into sync.call_windows (org) values (%s) on conflict do nothing", [org])

    def take(self) -> None:
        """Return when the next call may be made, and count it. Raises Refused where our share of the day is used up."""
        while (wait := self._reserve()) > 0:
            self.sleep(wait)

    def _reserve(self) -> float:
        """Count a call and return 0, or return the seconds until there may be room for it."""
        with self.connection.transaction():
            # The row lock makes the tasks of all processes queue here.
            row = self.connection.execute(
                "select calls, blocked_until, hours, daily_limit from sync.call_windows where org = %s for update",
                [self.org],
            ).fetchone()
            calls, blocked_until, hours, daily_limit = row  # type: ignore[misc]
            now = self.clock()
            if blocked_until > now:
                return blocked_until - now
            recent = [call for call in calls if call > now - self.window_s]
            if self.burst is not None and len(recent) >= self.burst:
                return recent[0] + self.window_s - now
            hours = self._counted(hours, daily_limit or self.daily, int(now // 3600))
            self.connection.execute(
                "update sync.call_windows set calls = %s, hours = %s where org = %s",
                [[*recent, now] if self.burst is not None else [], Jsonb(hours), self.org],
            )
            return 0.0

    def _counted(self, hours: dict[str, int], day: int | None, hour: int) -> dict[str, int]:
        """Return the calls by hour with one more. Raises Refused where the last 24 hours are full."""
        if day is None or self.daily is None:
            return hours
        # The hour that has begun and the 24 before it: a little more than a day, never less.
        kept = {each: calls for each, calls in hours.items() if int(each) >= hour - HOURS}
        made, budget = sum(kept.values()), int(day * SHARE_OF_DAY)
        if made >= budget:
            free_in = min(int(each) for each in kept) + HOURS + 1 - hour
            raise Refused(
                429,
                f"Stratum made {made} calls in the last {HOURS} hours, its share of the {day} that a day allows; "
                f"there is room again within {free_in} hours",
            )
        return kept | {str(hour): kept.get(str(hour), 0) + 1}

    def learn(self, day: int) -> None:
        """Note how many calls the organisation says a day allows."""
        if day != self._learned:
            self.connection.execute(
                "update sync.call_windows set daily_limit = %s where org = %s", [day, self.org]
            )
            self._learned = day

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

    def learn(self, day: int) -> None:
        """Keep nothing."""


@contextmanager
def limiter(
    role: str,
    org: str,
    burst: int | None,
    window_s: float,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    daily: int | None = None,
) -> Iterator[Limiter]:
    """Open a limiter as a warehouse role (loader or syncer), on a connection of its own."""
    with connect(role) as connection:
        connection.autocommit = True
        yield Limiter(connection, org, burst, window_s, clock, sleep, daily)
