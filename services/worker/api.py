"""The worker's calls to the API: registration, claims, events, large results, keychain."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import orjson
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)
from tenacity.stop import stop_base

from services.worker.cancelling import Cancelled
from services.worker.jsontext import encoded as json_bytes
from services.worker.limits import (
    BACKOFF_MAX_SECONDS,
    BACKOFF_SECONDS,
    BODY_PIECEWISE_BYTES,
    CLAIM_ATTEMPTS_MAX,
    CLAIM_REQUEST_SECONDS,
    DEREGISTER_REQUEST_SECONDS,
    EVENT_REQUEST_SECONDS,
    EVENT_RETRY_SECONDS,
    HEARTBEAT_REQUEST_SECONDS,
    POOL_REQUEST_SECONDS,
    RETRY_AFTER_MAX_SECONDS,
)
from services.worker.sealed import SealedBox
from shared.platform.errors import ApiRefusedError, ApiUnavailableError
from shared.platform.settings import WorkerSettings
from shared.platform.tracing import inject, span

T = TypeVar("T")
Json = dict[str, Any]

_RETRYABLE_STATUS = frozenset({408, 425, 429})  # and every 5xx
_BACKOFF = wait_random_exponential(multiplier=BACKOFF_SECONDS, max=BACKOFF_MAX_SECONDS)


class _BusyError(ApiUnavailableError):
    """As its base, with the seconds that the API asks to wait."""

    def __init__(self, text: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(text)
        self.retry_after_seconds = retry_after_seconds


def _retry_after(header: str | None) -> float:
    try:
        return min(max(float(header or 0), 0.0), RETRY_AFTER_MAX_SECONDS)
    except ValueError:  # an HTTP date; the backoff does
        return 0.0


def _wait(state: RetryCallState) -> float:
    """Return the seconds before the next try: the jittered backoff, after what the API asked for."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_seconds if isinstance(error, _BusyError) else 0.0
    return asked + _BACKOFF(state)


async def _persistently(call: Callable[[], Awaitable[T]], stop: stop_base) -> T:
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(ApiUnavailableError), stop=stop, wait=_wait, reraise=True
    ):
        with attempt:
            return await call()
    raise ApiUnavailableError("no attempt was made")


class WorkerApi:
    """Calls the API as worker `worker_id`; methods raise `ApiUnavailableError` or `ApiRefusedError`."""

    def __init__(self, session: aiohttp.ClientSession, settings: WorkerSettings, worker_id: str) -> None:
        self._session = session
        self._base = settings.noetl_server_url.rstrip("/").removesuffix("/api")
        self._settings = settings
        self.worker_id = worker_id
        self._started_at = datetime.now(UTC).isoformat()
        self._box = SealedBox() if settings.noetl_sealed_credentials else None

    async def _once(
        self, method: str, path: str, body: bytes | None, *, seconds: float, key: str | None = None, parse: bool = True
    ) -> Any:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if key is not None:
            headers["Idempotency-Key"] = key
        inject(headers)
        timeout = aiohttp.ClientTimeout(total=seconds)
        large = body is not None and len(body) > BODY_PIECEWISE_BYTES
        data = io.BytesIO(body) if body is not None and large else body
        try:
            async with self._session.request(
                method, self._base + path, data=data, headers=headers, timeout=timeout
            ) as response:
                raw = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _BusyError(f"{path}: {type(error).__name__}") from error
        if response.status >= 500 or response.status in _RETRYABLE_STATUS:
            raise _BusyError(f"{path} answered {response.status}", _retry_after(response.headers.get("Retry-After")))
        if not parse and response.status < 300:
            return raw
        try:
            answer = orjson.loads(raw)
        except orjson.JSONDecodeError:
            answer = None
        if response.status >= 300:
            detail = answer.get("detail") if isinstance(answer, dict) else None
            raise ApiRefusedError(response.status, path, detail)
        return answer

    async def register(self) -> None:
        """Enter this worker into the pool."""
        labels = {"pool_name": self._settings.noetl_worker_pool_name, "nats_consumer": self._settings.nats_consumer}
        body = {
            "name": self.worker_id,
            "component_type": "worker_pool",
            "runtime": self._runtime(),
            "status": "ready",
            "capacity": self._settings.noetl_worker_max_inflight_commands,
            "pid": os.getpid(),
            "hostname": socket.gethostname(),
            "labels": labels,
            "meta": {"started_at": self._started_at},
        }
        await self._once("POST", "/api/worker/pool/register", orjson.dumps(body), seconds=POOL_REQUEST_SECONDS)

    def _runtime(self) -> str | Json:
        return "python" if self._box is None else {"type": "python", "worker_public_key": self._box.public_key}

    async def pool_heartbeat(self) -> None:
        """Say that this worker lives; refused with 404 when it must register."""
        body = orjson.dumps({"name": self.worker_id})
        await self._once("POST", "/api/worker/pool/heartbeat", body, seconds=POOL_REQUEST_SECONDS)

    async def deregister(self) -> None:
        """Leave the pool: claims of this worker are free at once."""
        body = orjson.dumps({"name": self.worker_id, "component_type": "worker_pool"})
        await self._once("POST", "/api/worker/pool/deregister", body, seconds=DEREGISTER_REQUEST_SECONDS)

    async def claim(self, event_id: int) -> Any:
        """Claim the command of a `command.issued` event; the answer's meta has the attempt number."""
        locality = {"worker_pool": self._settings.noetl_worker_pool_name, "runtime": "python"}
        body = orjson.dumps({"worker_id": self.worker_id, "locality": locality})
        path = f"/api/commands/{event_id}/claim"
        with span("worker claim", event_id=event_id):
            return await _persistently(
                lambda: self._once("POST", path, body, seconds=CLAIM_REQUEST_SECONDS),
                stop_after_attempt(CLAIM_ATTEMPTS_MAX),
            )

    async def events(self, execution_id: int, events: Sequence[Mapping[str, Any]], *, key: str) -> None:
        """Report events as one unit under idempotency key `key`, for up to `EVENT_RETRY_SECONDS`."""
        body = orjson.dumps({"execution_id": str(execution_id), "worker_id": self.worker_id, "events": list(events)})
        with span("worker events", execution_id=execution_id):
            await _persistently(
                lambda: self._once("POST", "/api/events/batch", body, seconds=EVENT_REQUEST_SECONDS, key=key),
                stop_after_delay(EVENT_RETRY_SECONDS),
            )

    async def command_heartbeat(self, execution_id: int, event: Mapping[str, Any]) -> None:
        """Renew a command's lease; not repeated, the next one follows anyway."""
        body = orjson.dumps({**event, "execution_id": str(execution_id), "worker_id": self.worker_id})
        await self._once("POST", "/api/events", body, seconds=HEARTBEAT_REQUEST_SECONDS)

    async def cancelled(self, execution_id: int) -> Cancelled:
        """Return what of an execution has been cancelled."""
        path = f"/api/executions/{execution_id}/cancellation-check?commands=true"
        answer = await self._once("GET", path, None, seconds=HEARTBEAT_REQUEST_SECONDS)
        if not isinstance(answer, dict):
            return Cancelled()
        listed = answer.get("cancelled_commands")  # the original does not know it
        commands = frozenset(listed) if isinstance(listed, list) else frozenset()
        over = any(answer.get(state) is True for state in ("cancelled", "completed", "failed"))  # nobody wants the rest
        return Cancelled(whole=over, commands=commands)

    async def put_result(self, execution_id: int, step: str, encoded: bytes) -> Json:
        """Store an output (JSON text) and return the reference that an event carries instead of it."""
        body = orjson.dumps({"name": step, "data": orjson.Fragment(encoded), "scope": "execution", "source_step": step})
        path = f"/api/result/{execution_id}"
        with span("worker result", execution_id=execution_id, bytes=len(encoded)):
            stored = await _persistently(
                lambda: self._once("PUT", path, body, seconds=EVENT_REQUEST_SECONDS),
                stop_after_delay(EVENT_RETRY_SECONDS),
            )
        if not isinstance(stored, dict) or not isinstance(stored.get("ref"), str):
            raise ApiRefusedError(200, path, "the answer has no `ref`")
        return {
            "type": "result_ref",
            "locator": stored["ref"],
            "store": stored.get("store", "db"),
            "bytes": stored.get("bytes", len(encoded)),
            "sha256": stored.get("sha256"),
            "content_type": "application/json",
        }

    async def ask(
        self, method: str, path: str, body: object = None, *, seconds: float = POOL_REQUEST_SECONDS, attempts: int = 1
    ) -> Any:
        """Make a tool's call to the API: `attempts` tries of `seconds` each, and return the answer's JSON."""
        encoded = None if body is None else json_bytes(body)
        with span("worker ask"):
            return await _persistently(
                lambda: self._once(method, path, encoded, seconds=seconds), stop_after_attempt(attempts)
            )

    async def credential(self, name: str, *, seconds: float, attempts: int) -> Any:
        """Return a credential with its data; with NOETL_SEALED_CREDENTIALS it comes sealed for this process."""
        path = f"/api/credentials/{quote(name, safe='')}"
        if self._box is None:
            return await self.ask("GET", f"{path}?include_data=true", seconds=seconds, attempts=attempts)
        path = f"{path}/sealed?worker_id={quote(self.worker_id, safe='')}"
        try:
            return orjson.loads(self._box.open(await self.ask("GET", path, seconds=seconds, attempts=attempts)))
        except ValueError as error:
            raise ApiRefusedError(200, path, f"the sealed credential cannot be opened: {error}") from error

    async def stored_result(self, locator: str) -> tuple[Any, int] | None:
        """Return the data of a reference and its size (bytes), None when it is gone."""
        path = f"/api/result/resolve?ref={quote(locator, safe='')}"
        with span("worker stored result"):
            try:
                raw = await _persistently(
                    lambda: self._once("GET", path, None, seconds=EVENT_REQUEST_SECONDS, parse=False),
                    stop_after_attempt(CLAIM_ATTEMPTS_MAX),
                )
            except ApiRefusedError as error:
                if error.status == 404:
                    return None
                raise
        return orjson.loads(raw), len(raw)


@asynccontextmanager
async def open_worker_api(settings: WorkerSettings, worker_id: str) -> AsyncIterator[WorkerApi]:
    """Open a client on `NOETL_SERVER_URL`; connections stay open between commands."""
    connector = aiohttp.TCPConnector(limit=2 * settings.noetl_worker_max_inflight_commands + 2)
    token = (settings.noetl_api_token or settings.noetl_internal_api_token).get_secret_value().strip()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), headers=headers
    ) as session:
        yield WorkerApi(session, settings, worker_id)
