"""Reading an answer that may trickle: a time-out for each read never ends one that comes byte by byte."""

import time
from collections.abc import Iterable
from functools import partial

import urllib3

WHOLE_ANSWER_S = 180.0
"""The longest that the body of an answer may take."""
AT_ONCE = 65_536


def whole(parts: Iterable[bytes], late: Exception) -> bytes:
    """Return the parts of a body as one. Raises `late` where they take too long."""
    until = time.monotonic() + WHOLE_ANSWER_S
    body = []
    for part in parts:
        body.append(part)
        if time.monotonic() > until:
            raise late
    return b"".join(body)


def read_whole(answer: urllib3.BaseHTTPResponse, url: str) -> bytes:
    """Return the body of an answer that was not read yet. Raises urllib3's ReadTimeoutError where it takes too long."""
    late = urllib3.exceptions.ReadTimeoutError(None, url, "the answer trickles")  # type: ignore[arg-type]
    try:
        return whole(iter(partial(answer.read1, AT_ONCE, decode_content=True), b""), late)
    except urllib3.exceptions.ReadTimeoutError:
        answer.close()
        raise
