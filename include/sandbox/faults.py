"""Faults put in on purpose, and the count of calls: what tests need of the sandbox."""

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any


class Switches:
    """Faults by name, of a dataclass."""

    def take(self, name: str) -> bool:
        """Count a numbered fault down; tell whether it strikes this time."""
        left = getattr(self, name)
        setattr(self, name, max(0, left - 1))
        return left > 0

    def set(self, wanted: dict[str, Any]) -> None:
        """Set the named faults and leave the others. Raises ValueError for a name that is none."""
        unknown = set(wanted) - {each.name for each in fields(self)}  # type: ignore[arg-type]
        if unknown:
            raise ValueError(f"no such fault: {', '.join(sorted(unknown))}")
        for name, value in wanted.items():
            setattr(self, name, value)


@dataclass
class Faults(Switches):
    """What goes wrong next. Numbers count down by one each time; names stay until they are cleared."""

    refuse_ids: list[str] = field(default_factory=list)
    """Records, or keys of an upsert, whose row in a batch is refused (207)."""
    reject_batch_ids: list[str] = field(default_factory=list)
    """Records, or keys of an upsert, that make a batch fail as a whole, with `reject_batch_status`."""
    reject_batch_status: int = 400
    """The status of those."""
    missing_scopes: list[str] = field(default_factory=list)
    """Object types whose records answer 403: the token may not read them."""
    missing_objects: list[str] = field(default_factory=list)
    """Object types whose records answer 404: the account's plan has none of them."""
    rate_limited: int = 0
    """The next n calls answer 429."""
    rate_limited_at: str | None = None
    """Which endpoint alone those strike, such as `upsert_batch`; any if unset."""
    retry_after: int | None = None
    """Retry-After of those, in seconds; none if unset."""
    secondly_limited: int = 0
    """The next n searches answer 429 of the limit by the second."""
    server_error: int = 0
    """The next n batch updates and merges answer `server_error_status` and write nothing."""
    server_error_status: int = 502
    """The status of those."""
    unavailable: int = 0
    """The next n calls of any kind answer 503."""
    drop_answer: int = 0
    """The next n batch updates and merges write and then cut the connection."""
    drop_before: int = 0
    """The next n batch updates are not carried out, and the connection is cut in the middle of the answer."""
    malformed: int = 0
    """The next n batch updates are carried out, and answered with JSON that breaks off."""
    trickle: int = 0
    """The next n batch updates are carried out, and the answer comes byte by byte, each after `trickle_s`."""
    trickle_s: float = 0.02
    """How long each byte of those takes."""
    hang_before: int = 0
    """The next n calls that write are not carried out, and stay without an answer for `hang_s`."""
    hang_after: int = 0
    """The next n calls that write are carried out, and the answer comes after `hang_s`."""
    hang_s: float = 30.0
    """How long a call that hangs waits at most; it ends as soon as the client leaves."""
    cut_answer: int = 0
    """The next n answers to anything that only reads break off in the middle."""
    slow_s: float = 0.0
    """Every call waits so long before it is answered."""
    expires_after: int | None = None
    """So many calls more are answered, then the token has expired (401)."""
    unindexed_ids: list[str] = field(default_factory=list)
    """Records that no search shows: its index has not caught up with them."""
    search_delay_s: float = 0.0
    """What was written within so many seconds is not shown by a search yet."""
    merge_anew: bool = False
    """A merge makes a record of a new id out of both, as HubSpot's app does, and leaves neither."""
    empty_complete: int = 0
    """The next n batch updates answer COMPLETE without results and write nothing."""


@dataclass
class Calls:
    """How often each endpoint was called, refused calls included."""

    by_endpoint: Counter[str] = field(default_factory=Counter)
    writes: int = 0
    """Calls that would change records: batch update, archive, merge."""
