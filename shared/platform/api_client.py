"""The client of `/api/internal/*` (docs/contracts.md section 3) for the services that read and write through the API."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from shared.platform.errors import ApiRefusedError, ApiUnavailableError
from shared.platform.settings import CommonSettings
from shared.platform.tracing import inject, span

log = logging.getLogger(__name__)

REQUEST_SECONDS = 20.0  # one request at most; a claim or a commit takes milliseconds
ATTEMPTS_MAX = 4  # tries of one call before the caller's own loop takes over
BACKOFF_SECONDS = 0.05  # first wait between tries; doubles, jittered
BACKOFF_MAX_SECONDS = 1.0
CONNECTIONS_MAX = 16

_RETRYABLE_STATUS = frozenset({429, 502, 503, 504})

Json = dict[str, Any]


class ApiClient:
    """Calls the internal routes; every method raises `ApiUnavailableError` or `ApiRefusedError`."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, token: str) -> None:
        self._session = session
        self._base = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    async def _once(self, method: str, path: str, body: bytes | None) -> Any:
        headers = dict(self._headers)
        inject(headers)
        try:
            async with self._session.request(method, self._base + path, data=body, headers=headers) as response:
                raw = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiUnavailableError(f"{path}: {type(error).__name__}") from error
        if response.status in _RETRYABLE_STATUS or response.status >= 500:
            raise ApiUnavailableError(f"{path} answered {response.status}: {raw[:200]!r}")
        try:
            answer = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise ApiUnavailableError(f"{path} answered no JSON") from error
        if response.status >= 400:
            raise ApiRefusedError(response.status, path, answer.get("detail") if isinstance(answer, dict) else answer)
        return answer

    async def _call(self, method: str, path: str, body: object = None) -> Any:
        encoded = None if body is None else orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)
        with span(f"api {method} {path}"):
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(ApiUnavailableError),
                stop=stop_after_attempt(ATTEMPTS_MAX),
                wait=wait_random_exponential(multiplier=BACKOFF_SECONDS, max=BACKOFF_MAX_SECONDS),
                reraise=True,
            ):
                with attempt:
                    return await self._once(method, path, encoded)
        raise ApiUnavailableError(path)

    async def claim_outbox(self, limit: int, *, published: Sequence[int] = ()) -> list[Json]:
        """Mark `published` rows, then lease up to `limit` (1..1000) due rows, oldest first."""
        body = {"limit": limit, "published_ids": list(published)}
        rows: list[Json] = (await self._call("POST", "/api/internal/outbox/claim", body))["rows"]
        return rows

    async def mark_published(self, outbox_ids: Sequence[int]) -> int:
        """Mark rows as published; return how many there were."""
        answer = await self._call("POST", "/api/internal/outbox/mark-published", {"outbox_ids": list(outbox_ids)})
        return int(answer["marked"])

    async def mark_failed(self, outbox_id: int, *, error: str, attempts: int) -> bool:
        """Give a row back after a failed publish; True when it went to the dead letters."""
        body = {"outbox_id": outbox_id, "error": error, "attempts": attempts}
        return bool((await self._call("POST", "/api/internal/outbox/mark-failed", body)).get("dead_lettered"))

    async def pending_count(self) -> int:
        """Return how many outbox rows wait."""
        return int((await self._call("GET", "/api/internal/outbox/pending-count"))["pending"])

    async def project(self, events: Sequence[Mapping[str, Any]], projections: Mapping[str, Any] | None) -> Json:
        """Store events that are missing in the log, and read models."""
        body = {"events": list(events), "projections": projections}
        answer: Json = await self._call("POST", "/api/internal/events/project", body)
        return answer

    async def load(self, executions: Mapping[int, int], *, snapshots: bool = True) -> Json:
        """Load executions with their events after a version: `{execution_id: after_version}`, 200 at most.

        From version 0, with `snapshots`, an execution may come as a snapshot with the events after it.
        """
        items = [
            {"execution_id": key, "after_version": value, "snapshot": snapshots} for key, value in executions.items()
        ]
        body = {"executions": items}
        answer: Json = await self._call("POST", "/api/internal/executions/load", body)
        return answer

    async def playbook(self, catalog_id: int) -> Json:
        """Return a catalog entry with its content."""
        answer: Json = await self._call("GET", f"/api/internal/playbooks/{catalog_id}")
        return answer

    async def put_snapshot(self, execution_id: int, version: int, snapshot: bytes) -> bool:
        """Keep a folded state (JSON text); False when a newer one is there or the execution has ended."""
        body = {"execution_id": execution_id, "version": version, "snapshot": orjson.Fragment(snapshot)}
        return bool((await self._call("POST", "/api/internal/executions/snapshot", body))["stored"])

    async def resolve_references(self, locators: Sequence[str]) -> Json:
        """Return `{"data": {locator: value}, "missing": [locator ..]}`, 64 locators at most."""
        answer: Json = await self._call("POST", "/api/internal/references/resolve", {"locators": list(locators)})
        return answer

    async def commit(self, decisions: Sequence[bytes]) -> list[Json]:
        """Commit up to 200 decisions, each as JSON text; answers one result each."""
        body = {"decisions": [orjson.Fragment(decision) for decision in decisions]}
        results: list[Json] = (await self._call("POST", "/api/internal/executions/commit", body))["results"]
        return results

    async def reconcile(self, limit: int) -> Json:
        """Let the API repair what is overdue; answers the executions that nobody has decided."""
        answer: Json = await self._call("POST", "/api/internal/reconcile", {"limit": limit})
        return answer

    async def dead_letter(
        self,
        *,
        source: str,
        subject: str,
        msg_id: str | None,
        payload: object,
        reason: str,
        deliveries: int,
        execution_id: int | None = None,
    ) -> None:
        """Keep a message that cannot be handled, with the reason."""
        body = {
            "source": source,
            "subject": subject,
            "msg_id": msg_id,
            "payload": payload,
            "reason": reason,
            "deliveries": deliveries,
            "execution_id": execution_id,
        }
        await self._call("POST", "/api/internal/dead-letters", body)


@asynccontextmanager
async def open_api(settings: CommonSettings) -> AsyncIterator[ApiClient]:
    """Open a client on `NOETL_SERVER_URL` with the internal token."""
    timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
    connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector, auto_decompress=True) as session:
        yield ApiClient(session, settings.noetl_server_url, settings.noetl_internal_api_token.get_secret_value())
