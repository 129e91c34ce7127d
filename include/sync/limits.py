"""One limiter per CRM organisation, shared by all tasks through the warehouse: a burst, and a budget for the day."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg.types.json import Jsonb

from include.connections import ApiConnection, LoginConnection
from include.errors import StratumError
from include.sync.target import Refused
from include.warehouse.connect import connect

SHARE_OF_DAY = 0.5
"""Of the calls that a day allows an organisation, those that Stratum may make: others use its API too."""
HOURS = 24
WHOLE, SECONDS = re.compile(r"[0-9]{1,9}"), re.compile(r"[0-9]{1,9}([.][0-9]{1,3})?")
STATED = {
    "burst_calls": ("burst", WHOLE, int),
    "burst_seconds": ("window_s", SECONDS, float),
    "daily_budget": ("budget", WHOLE, int),
}
"""Extra of a connection → the limit that it states, and how it is written."""


@dataclass(frozen=True)
class Limits:
    """How many calls one organisation takes: `burst` in `window_s` seconds, `daily` in a day; None is no such limit.

    Of a day Stratum may make `budget`; None is SHARE_OF_DAY of what the organisation allows.
    """

    burst: int | None = None
    window_s: float = 10.0
    daily: int | None = None
    budget: int | None = None

    def stated(self, connection: ApiConnection | LoginConnection) -> "Limits":
        """Return them with what the connection's extra states in their place: burst_calls, burst_seconds, daily_budget.

        Raises StratumError where one is no number above 0.
        """
        given: dict[str, Any] = {}
        for name, (limit, pattern, kind) in STATED.items():
            text = connection.extra.get(name)
            if text is None:
                continue
            if not pattern.fullmatch(text) or not kind(text):
                raise StratumError(
                    f"The connection '{connection.conn_id}' has {name}: {text} in its extra, which is no number of "
                    "calls or seconds above 0: correct it, or leave it out."
                )
            given[limit] = kind(text)
        return replace(self, **given)


def org_of(system: str, host: str, connection: ApiConnection) -> str:
    """Return the name of the organisation a token opens: by `account` in the connection's extra, else by the token itself.

    So tokens of one account share its limits where their connections name it, and a new one goes on with the day.
    """
    token = hashlib.sha256(connection.token.encode()).hexdigest()[:12]
    return f"{system}:{urlsplit(host).netloc}:{connection.extra.get('account', token)}"


class Limiter:
    """Lets through what the limits of one organisation allow, over all processes.

    `limits.daily` holds until the organisation says itself what a day allows (`learn`). `clock` gives seconds since 1970 and
    `sleep` waits; both are injected by tests.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        org: str,
        limits: Limits,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.connection = connection
        self.org = org
        self.limits = limits
        self.clock = clock
        self.sleep = sleep
        self._learned: int | None = None
        connection.execute("insert into sync.call_windows (org) values (%s) on conflict do nothing", [org])

    def beside(self, name: str, limits: Limits) -> "Limiter":
        """Return a limiter of the same organisation for calls of one kind, which have limits of their own besides."""
        return Limiter(self.connection, f"{self.org}:{name}", limits, self.clock, self.sleep)

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
            burst, window_s = self.limits.burst, self.limits.window_s
            recent = [call for call in calls if call > now - window_s]
            if burst is not None and len(recent) >= burst:
                return recent[-burst] + window_s - now
            hours = self._counted(hours, daily_limit or self.limits.daily, int(now // 3600))
            self.connection.execute(
                "update sync.call_windows set calls = %s, hours = %s where org = %s",
                [[*recent, now] if burst is not None else [], Jsonb(hours), self.org],
            )
            return 0.0

    def _counted(self, hours: dict[str, int], day: int | None, hour: int) -> dict[str, int]:
        """Return the calls by hour with one more. Raises Refused where the last 24 hours are full."""
        budget = self.limits.budget
        if budget is None:
            if day is None or self.limits.daily is None:
                return hours
            budget = max(1, int(day * SHARE_OF_DAY))
        # The hour that has begun and the 24 before it: a little more than a day, never less.
        kept = {each: calls for each, calls in hours.items() if int(each) >= hour - HOURS}
        made = sum(kept.values())
        if made >= budget:
            free_in = min(int(each) for each in kept) + HOURS + 1 - hour
            share = f"share of the {day} that a day allows" if self.limits.budget is None else "daily_budget"
            raise Refused(
                429,
                f"Stratum made {made} calls in the last {HOURS} hours, its {share}; there is room again within "
                f"{free_in} hours",
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

    def beside(self, name: str, limits: Limits) -> "Alone":
        """Return itself."""
        return self


@contextmanager
def limiter(
    role: str | None,
    org: str,
    limits: Limits,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Limiter | Alone]:
    """Open a limiter for a warehouse role (loader or syncer), on a connection of its own; without a role none is kept."""
    if role is None:
        yield Alone(sleep)
        return
    with connect(role) as connection:
        connection.autocommit = True
        yield Limiter(connection, org, limits, clock, sleep)
