"""How long a system that turns calls away (429 and its like) is waited for: as long as it says, and not for ever."""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from include.sync.limits import Alone, Limiter

PATIENCE_S = 120.0
"""Of one call, in all: longer than the window of any burst. A limit that lasts longer is the one of the day."""
UNNAMED_S = 10.0
"""To wait where no time is named."""
LEAST_S = 1.0
"""To wait where the time that is named is over: a system that keeps saying 0 would be asked without end."""
SECONDS = re.compile(r"[0-9]{1,9}([.][0-9]+)?")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds for which Retry-After wants no further call, None where it names no time.

    It is a number of seconds, or a date (RFC 9110, 10.2.3), which is counted from the answer's own Date: the clocks of
    the two machines need not agree.
    """
    given = headers.get("Retry-After", "").strip()
    if SECONDS.fullmatch(given):
        return float(given)
    try:
        wait = parsedate_to_datetime(given) - parsedate_to_datetime(headers.get("Date", ""))
    except (ValueError, TypeError):  # one of the two is no date, or has no zone
        return None
    return max(0.0, wait.total_seconds())


class Patience:
    """What is left of the time for which one call may be turned away."""

    def __init__(self) -> None:
        self._waited = 0.0

    def block(
        self, limiter: Limiter | Alone, headers: Mapping[str, str], unnamed_s: float = UNNAMED_S
    ) -> bool:
        """Block the limiter for as long as an answer asks for, `unnamed_s` where it names no time.

        Returns False, and blocks nothing, where that is longer than we wait for one call.
        """
        named = retry_after(headers)
        wait = max(LEAST_S, unnamed_s if named is None else named)
        self._waited += wait
        if self._waited > PATIENCE_S:
            return False
        limiter.block(wait)
        return True
