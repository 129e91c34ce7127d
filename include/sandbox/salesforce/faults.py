"""Faults put in on purpose into the sandbox's Salesforce, and the count of calls."""

from collections import Counter
from dataclasses import dataclass, field

from starlette.responses import Response

from include.sandbox.faults import Switches
from include.sandbox.salesforce.answers import cut_off
from include.sandbox.spoiled import malformed, trickled


@dataclass
class SalesforceFaults(Switches):
    """What goes wrong next. Numbers count down by one each time; the others stay until they are cleared."""

    rate_limited: int = 0
    """The next n calls answer 429."""
    rate_limited_at: str | None = None
    """Which endpoint alone those strike; any if unset."""
    retry_after: int | None = None
    """Retry-After of those, in seconds; none if unset."""
    request_limit: bool = False
    """Every call but a login answers 403 REQUEST_LIMIT_EXCEEDED: the calls of the day are used up."""
    server_error: int = 0
    """The next n calls answer 503."""
    server_error_at: str | None = None
    """Which endpoint alone those strike; any if unset."""
    server_error_status: int = 503
    """The status of those."""
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

    # Of calls that write: create, update, upsert, delete, and the steps of a Bulk job that ingests.
    write_fault_at: str | None = None
    """Which of those calls alone the next six strike, by the name of its endpoint; any if unset."""
    hang_before: int = 0
    """The next n calls are never carried out, and stay without an answer for `hang_s`."""
    hang_after: int = 0
    """The next n calls are carried out, and the answer comes after `hang_s`."""
    drop_before: int = 0
    """The next n calls are not carried out, and the connection is cut in the middle of the answer."""
    drop_after: int = 0
    """The next n calls are carried out, and the connection is cut in the middle of the answer."""
    malformed: int = 0
    """The next n calls are carried out, and answered with JSON that breaks off."""
    trickle: int = 0
    """The next n calls are carried out, and the answer comes byte by byte, each after `trickle_s`."""
    trickle_s: float = 0.02
    """How long each byte of those takes."""
    hang_s: float = 30.0
    """How long a call that hangs waits at most; it ends as soon as the client leaves."""
    refuse_rows: dict[str, str] = field(default_factory=dict)
    """Rows refused, by record id, external id or (of new ones) Name → the code they are refused with."""
    locked_rows: dict[str, int] = field(default_factory=dict)
    """Rows whose next n writes are refused with UNABLE_TO_LOCK_ROW, named as above."""
    reject_ids: list[str] = field(default_factory=list)
    """Records, or external ids, that make a collection of updates or upserts fail as a whole (400)."""
    empty_results: int = 0
    """The next n collections of updates or upserts are answered with no result at all, and write nothing."""
    ingest_delay_s: float = 0.0
    """How long after it was closed an ingest job is carried out; until then it answers InProgress."""
    fail_ingest: int = 0
    """The next n ingest jobs end as Failed, after `fail_ingest_rows` rows; the others stay unprocessed."""
    fail_ingest_rows: int = 0
    """How many rows such a job has carried out."""
    empty_ingest: int = 0
    """The next n ingest jobs end as JobComplete without having done, refused or left over any row."""
    stall_ingest: int = 0
    """The next n ingest jobs are never carried out: they stay UploadComplete until they are aborted."""

    def strikes(self, fault: str, endpoint: str) -> bool:
        """Count a fault of calls that write down; tell whether it strikes this one."""
        return self.write_fault_at in (None, endpoint) and self.take(fault)

    def spoiled(self, endpoint: str, response: Response) -> Response:
        """Return what the client gets of a call that was carried out."""
        if self.strikes("malformed", endpoint):
            return malformed(response)
        if self.strikes("trickle", endpoint):
            return trickled(response, self.trickle_s)
        return cut_off(response) if self.strikes("drop_after", endpoint) else response


@dataclass
class SalesforceCalls:
    """How often each endpoint was called, refused calls included; `queries` are the texts that came."""

    by_endpoint: Counter[str] = field(default_factory=Counter)
    queries: list[str] = field(default_factory=list)
