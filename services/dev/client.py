"""The public API as `playhead run` uses it: register, execute, follow."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson

REQUEST_SECONDS = 30.0
RECONNECT_SECONDS = 0.5  # between attempts to resume a broken event stream
RECONNECTS_MAX = 60  # in a row: half a minute, as long as a restart of the API may take
LINE_BYTES_MAX = 16 * 1024 * 1024  # of one event; the API's largest body is half of it


class RequestError(Exception):
    """The API refused or cannot be reached; the text is for the person at the terminal."""


def caller_token() -> str:
    """Return the token of whoever types: NOETL_API_TOKEN, or NOETL_SESSION_TOKEN as the original's CLI reads it."""
    return (os.environ.get("NOETL_API_TOKEN") or os.environ.get("NOETL_SESSION_TOKEN") or "").strip()


class PublicApi:
    """Calls one API server, with `token` if it asks who calls; None: the one in the environment."""

    def __init__(self, session: aiohttp.ClientSession, server: str, token: str | None = None) -> None:
        self._session = session
        self._server = server.rstrip("/")
        given = caller_token() if token is None else token
        self._headers = {"Authorization": f"Bearer {given}"} if given else {}

    async def request(self, method: str, path: str, body: object = None) -> Any:
        """Return the JSON answer.

        Raises:
            RequestError: there is none, or it is an error.
        """
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        data = None if body is None else orjson.dumps(body)
        headers = {"Content-Type": "application/json", **self._headers}
        try:
            async with self._session.request(
                method, self._server + path, data=data, headers=headers, timeout=timeout
            ) as response:
                raw = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise RequestError(
                f"cannot reach the API at {self._server} ({type(error).__name__}): start it with `playhead dev`, or name "
                "another with --server"
            ) from error
        try:
            answer = orjson.loads(raw)
        except orjson.JSONDecodeError:
            answer = {"detail": raw[:300].decode(errors="replace")}
        if response.status >= 400:
            raise RequestError(_detail(answer))
        return answer

    async def events(self, execution_id: str) -> AsyncIterator[dict[str, Any]]:
        """Yield every event once, in order, until the terminal one; a broken connection is resumed.

        Raises:
            RequestError: the stream cannot be resumed.
        """
        last, failures = "0", 0
        while failures <= RECONNECTS_MAX:
            try:
                async for number, event in self._stream(execution_id, last):
                    last, failures = number, 0
                    yield event
                    if event.get("event_type") in TERMINAL:
                        return
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass  # resumed below
            failures += 1
            await asyncio.sleep(RECONNECT_SECONDS)
        raise RequestError(
            f"the event stream of {execution_id} is gone; look with GET /api/executions/{execution_id}/status"
        )

    async def _stream(self, execution_id: str, last: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        url = f"{self._server}/api/executions/{execution_id}/events/stream"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=60.0)  # it sends something every 15 s
        async with self._session.get(
            url, headers={"Last-Event-ID": last, **self._headers}, timeout=timeout
        ) as response:
            if response.status != 200:
                raise aiohttp.ClientPayloadError(f"status {response.status}")
            number, buffer = last, b""
            async for chunk in response.content.iter_any():
                buffer += chunk
                if len(buffer) > LINE_BYTES_MAX:
                    raise RequestError("an event is too large to show")
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    if line.startswith(b"id: "):
                        number = line[4:].decode()
                    elif line.startswith(b"data: "):
                        yield number, orjson.loads(line[6:])


TERMINAL = frozenset({"playbook.completed", "playbook.failed", "execution.cancelled"})


def _detail(answer: object) -> str:
    """Return what an error answer says; of a playbook that was refused, every problem on a line of its own."""
    detail = answer.get("detail") if isinstance(answer, dict) else answer
    problems = answer.get("problems") if isinstance(answer, dict) else None
    if isinstance(problems, list) and problems:
        told = [
            f"  line {item['line']}, column {item['column']}: {item['severity']}: "
            + (f"{item['key']}: " if item["key"] else "")
            + item["message"]
            for item in problems
        ]
        return "\n".join([str(detail).partition(": line ")[0], *told])
    if isinstance(detail, list):
        places = [(".".join(str(part) for part in item.get("loc", ())), item.get("msg")) for item in detail]
        return "; ".join(f"{place}: {text}" for place, text in places)
    if isinstance(detail, dict):
        return str(detail.get("message") or detail)
    return str(detail)
