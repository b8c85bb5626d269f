"""Requests as clients make them while processes are away: again, until there is an answer."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import aiohttp

_AGAIN = (aiohttp.ClientError, TimeoutError, ConnectionError)
_PATIENCE = 60  # seconds


async def insist(
    session: aiohttp.ClientSession, method: str, url: str, body: Any = None, token: str | None = None
) -> tuple[int, Any]:
    """Status and JSON of the first answer of the server's own; 5xx ones are the proxy's, while a process is away."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    data = None if body is None else json.dumps(body)
    deadline = time.monotonic() + _PATIENCE
    last = "nothing"
    while True:
        try:
            async with asyncio.timeout(30), session.request(method, url, data=data, headers=headers) as answer:
                if answer.status < 500:
                    return answer.status, await answer.json()
                last = f"{answer.status} {await answer.text()}"
        except _AGAIN:
            pass
        assert time.monotonic() < deadline, f"{method} {url} was never answered but by {last}"
        await asyncio.sleep(0.05)
