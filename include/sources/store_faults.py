"""What went wrong at an object store, told without the words of the vendor's library: these may hold a key or a URL."""

import errno
from collections.abc import Iterator
from typing import Literal

from include.errors import StratumError, TransientError

Kind = Literal["denied", "missing", "lost", "full", "other"]
DENIED = {
    "botocore.NoCredentialsError",
    "botocore.PartialCredentialsError",
    "botocore.CredentialRetrievalError",
    "botocore.ProfileNotFound",
    "azure.ClientAuthenticationError",
    "google.DefaultCredentialsError",
    "google.RefreshError",
    "google.MalformedError",
}
LOST = {
    "botocore.ConnectionError",
    "botocore.HTTPClientError",
    "aiohttp.ClientError",
    "azure.ServiceRequestError",
    "azure.ServiceResponseError",
    "azure.IncompleteReadError",
    "google.TransportError",
    "requests.RequestException",
}
MISSING = {"azure.ResourceNotFoundError"}
BUSY = (errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EIO), errno.ETIMEDOUT)
"""What s3fs makes of answers 500, 503 and SlowDown."""
UNAUTHORIZED, FORBIDDEN, NOT_FOUND, TOO_MANY, SERVER_ERROR = 401, 403, 404, 429, 500


def kind_of_fault(error: BaseException) -> Kind:
    """Return what an error of fsspec, or of a library below it, means."""
    for each in _chain(error):
        names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(each).__mro__}
        status = _status(each)
        number = each.errno if isinstance(each, OSError) else None
        if number == errno.ENOSPC:
            return "full"
        if isinstance(each, PermissionError) or status in (UNAUTHORIZED, FORBIDDEN) or names & DENIED:
            return "denied"
        # gcsfs has no class of its own for this answer.
        if type(each) is OSError and str(each).startswith("Forbidden"):
            return "denied"
        if isinstance(each, FileNotFoundError) or status == NOT_FOUND or names & MISSING:
            return "missing"
        if isinstance(each, ConnectionError | TimeoutError) or number in BUSY or names & LOST:
            return "lost"
        if status is not None and (status == TOO_MANY or status >= SERVER_ERROR):
            return "lost"
    return "other"


def fault(error: BaseException, place: str, connection: str | None) -> StratumError:
    """Return an error at `place` (a URL without a secret) as a line for the user."""
    kind = kind_of_fault(error)
    login = (
        f"the connection '{connection}'"
        if connection
        else "behavior.connection, or the vendor's own variables"
    )
    if kind == "denied":
        return StratumError(
            f"The store does not let Stratum read {place}: the login is missing or wrong, or may not list and read there. "
            f"Check {login} of the sources."
        )
    if kind == "missing":
        return StratumError(
            f"There is no {place}, or the login may not see it. Correct behavior.file of the sources, or check {login}."
        )
    if kind == "lost":
        return TransientError(
            f"The connection to the store of {place} was lost or cut off ({type(error).__name__}), also when tried again. "
            f"Load the date again; where it stays so, check the address in {login}."
        )
    if kind == "full":
        return StratumError(f"The disk of STRATUM_HOME is full: {place} cannot be brought there. Make room.")
    return StratumError(f"{place} cannot be read: {_named(error)}. Check behavior.file and {login}.")


def _chain(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _status(error: BaseException) -> int | None:
    for name in ("status_code", "code", "status"):
        value = getattr(error, name, None)
        if isinstance(value, int):
            return value
    return None


def _named(error: BaseException) -> str:
    status = _status(error)
    return type(error).__name__ + (f" ({status})" if status else "")
