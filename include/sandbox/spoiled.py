"""Answers that arrive, and not as they should: broken off, byte by byte."""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse


def malformed(response: Response) -> Response:
    """Return an answer whose body ends in the middle, without a sign of it but its own brackets."""
    body = bytes(response.body)
    return Response(body[: len(body) // 2] + b"{", response.status_code, media_type="application/json")


async def hang(request: Request, longest_s: float) -> None:
    """Wait until the client leaves, at most so long; the body of the request was read."""
    try:
        await asyncio.wait_for(request.receive(), longest_s)
    except TimeoutError:
        return


def trickled(response: Response, pause_s: float) -> Response:
    """Return the same answer, whose body comes byte by byte, with a pause before each."""
    body = bytes(response.body)

    async def bytes_one_by_one() -> AsyncIterator[bytes]:
        for byte in body:
            await asyncio.sleep(pause_s)
            yield bytes([byte])

    return StreamingResponse(bytes_one_by_one(), response.status_code, headers=dict(response.headers))
