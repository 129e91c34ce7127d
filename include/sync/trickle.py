"""Reading an answer that may trickle: a time-out for each read never ends one that comes byte by byte."""

import time

import urllib3

WHOLE_ANSWER_S = 180.0
"""The longest that the body of an answer may take."""
AT_ONCE = 65_536


def read_whole(answer: urllib3.BaseHTTPResponse, url: str) -> bytes:
    """Return the body of an answer that was not read yet. Raises urllib3's ReadTimeoutError where it takes too long."""
    until = time.monotonic() + WHOLE_ANSWER_S
    parts: list[bytes] = []
    while part := answer.read1(AT_ONCE, decode_content=True):
        parts.append(part)
        if time.monotonic() > until:
            answer.close()
            raise urllib3.exceptions.ReadTimeoutError(None, url, "the answer trickles")  # type: ignore[arg-type]
    return b"".join(parts)
