"""One live server, asked with bounded time and size."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from services.dev.parity.recordings import Answer, Request

REQUEST_SECONDS = 30.0
ANSWER_BYTES_MAX = 64 * 1024 * 1024


class ServerError(Exception):
    """A server did not answer; the text says which and why."""


class Server:
    """Answers of one base URL; redirects are answers, too."""

    def __init__(self, session: aiohttp.ClientSession, url: str, *, token: str | None = None) -> None:
        """Ask `url`, with `token` as bearer unless a request brings its own."""
        self.url = url.rstrip("/")
        self._session = session
        self._token = token

    async def ask(self, request: Request) -> Answer:
        """Return the answer to `request`.

        Raises:
            ServerError: there is none, or it is over the limit.
        """
        headers = dict(request.headers)
        if self._token and "authorization" not in {key.lower() for key in headers}:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            async with self._session.request(
                request.method,
                self.url + request.path,
                data=request.body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
            ) as response:
                body = await response.content.read(ANSWER_BYTES_MAX + 1)
                while not response.content.at_eof() and len(body) <= ANSWER_BYTES_MAX:
                    body += await response.content.read(ANSWER_BYTES_MAX + 1 - len(body))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ServerError(f"{self.url}: {type(error).__name__}: {error}") from error
        if len(body) > ANSWER_BYTES_MAX:
            raise ServerError(f"{self.url}: the answer is over {ANSWER_BYTES_MAX} bytes")
        return Answer(
            status=response.status, headers={key.lower(): value for key, value in response.headers.items()}, body=body
        )

    async def json(self, method: str, path: str, body: object = None) -> Any:
        """Return the JSON of a good answer, None for any other.

        Raises:
            ServerError: there is no answer.
        """
        sent = None if body is None else json.dumps(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        answer = await self.ask(Request(name="", method=method, path=path, headers=headers, body=sent))
        try:
            return json.loads(answer.body) if answer.status == 200 else None
        except ValueError:
            return None
