"""A target's silence or no, where something was to be learnt from it, as the error a user can act on."""

from collections.abc import Iterator
from contextlib import contextmanager

from include.errors import StratumError, TransientError
from include.sync.target import NoAnswer, Refused, Target


@contextmanager
def asking(target: Target, what: str, so_far: str) -> Iterator[None]:
    """Turn Refused and NoAnswer into StratumError, or TransientError where another try may help.

    `what` was asked ("which fields it has"), `so_far` says what was done ("Nothing was sent.").
    """
    try:
        yield
    except NoAnswer as error:
        raise TransientError(
            f"{target.name} did not tell {what} ({error}). {so_far} Is it up? Try again later."
        ) from error
    except Refused as error:
        kind = TransientError if error.is_temporary else StratumError
        raise kind(
            f"{target.name} did not let Stratum see {what} ({error}). {so_far} Check the connection, and what its user "
            "may do."
        ) from error
