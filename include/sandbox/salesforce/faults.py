"""Faults put in on purpose into the sandbox's Salesforce, and the count of calls."""

from collections import Counter
from dataclasses import dataclass, field

from include.sandbox.faults import Switches


@dataclass
class SalesforceFaults(Switches):
    """What goes wrong next. Numbers count down by one each time; the others stay until they are cleared."""

    rate_limited: int = 0
    """The next n calls answer 429."""
    retry_after: int | None = None
    """Retry-After of those, in seconds; none if unset."""
    request_limit: bool = False
    """Every call but a login answers 403 REQUEST_LIMIT_EXCEEDED: the calls of the day are used up."""
    server_error: int = 0
    """The next n calls answer 503."""
    server_error_at: str | None = None
    """Which endpoint alone those strike; any if unset."""
    slow_s: float = 0.0
    """Every answer comes so many seconds late."""
    expire_session: int = 0
    """The next n calls find their session expired; it stays so until a new login."""
    expire_session_at: str | None = None
    """Which endpoint alone those strike; any if unset."""
    drop_job_answer: int = 0
    """The next n query jobs are made, and the connection is cut before the answer."""
    cut_results: int = 0
    """The next n pages of results break off in the middle."""
    short_results: int = 0
    """The next n pages of results end one row too early, without a sign of it but their own count."""
    fail_jobs: int = 0
    """The next n query jobs end as Failed."""


@dataclass
class SalesforceCalls:
    """How often each endpoint was called, refused calls included; `queries` are the texts that came."""

    by_endpoint: Counter[str] = field(default_factory=Counter)
    queries: list[str] = field(default_factory=list)
