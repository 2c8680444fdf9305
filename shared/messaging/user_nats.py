"""A user's own NATS for tools: key-value buckets, object buckets, messages. Never the platform's streams.

Every call raises `UserNatsError`; each has a time limit and bounded answers.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import KeyValueConfig, ObjectStoreConfig
from nats.js.client import JetStreamContext
from nats.js.kv import KeyValue
from nats.js.object_store import ObjectStore

T = TypeVar("T")

CONNECT_SECONDS = 5  # to reach a server
REQUEST_SECONDS = 10.0  # one request to JetStream
CONNECTIONS_MAX = 16  # users' servers with an open connection; the least used one goes first
IDLE_SECONDS = 120.0  # then a connection that nobody uses is closed
CLOSE_SECONDS = 2.0  # to say goodbye
KEYS_MAX = 10_000  # of one listing
OBJECTS_MAX = 10_000  # of one listing


class UserNatsError(Exception):
    """What went wrong, under a short `code`."""

    def __init__(self, code: str, text: str, *, retryable: bool = False) -> None:
        super().__init__(text)
        self.code, self.retryable = code, retryable


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsTarget:
    """A server and how to log in."""

    url: str
    user: str | None = None
    password: str | None = None
    token: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """An entry of a bucket, or an object (`revision` 0)."""

    data: bytes
    revision: int = 0
    digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Where a message lies in a stream."""

    stream: str
    seq: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamMessage:
    """A message of a stream."""

    subject: str
    seq: int
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """What a stream holds."""

    name: str
    subjects: tuple[str, ...]
    messages: int
    bytes: int
    first_seq: int
    last_seq: int
    consumers: int


async def _asked(call: Awaitable[T], what: str) -> T:
    """Wait for an answer.

    Raises:
        UserNatsError: none came, or it is a refusal.
    """
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            return await call
    except (nats.errors.TimeoutError, TimeoutError, nats.errors.NoRespondersError) as error:
        raise UserNatsError("TIMEOUT", f"{what}: no answer (is JetStream enabled?)", retryable=True) from error
    except (nats.js.errors.BucketNotFoundError, nats.js.errors.NotFoundError) as error:
        raise UserNatsError("NOT_FOUND", f"{what}: it does not exist") from error
    except (nats.js.errors.Error, nats.errors.Error, ValueError) as error:
        retryable = isinstance(error, (nats.js.errors.ServiceUnavailableError, nats.js.errors.ServerError))
        retryable = retryable or isinstance(
            error, (nats.errors.ConnectionClosedError, nats.errors.StaleConnectionError)
        )
        raise UserNatsError(type(error).__name__, f"{what}: {error}", retryable=retryable) from error


class NatsSession:
    """The operations on one server."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._js: JetStreamContext = client.jetstream(timeout=REQUEST_SECONDS)

    async def _bucket(self, name: str, *, create: bool = False) -> KeyValue:
        try:
            return await _asked(self._js.key_value(name), f"bucket '{name}'")
        except UserNatsError as error:
            if not create or error.code != "NOT_FOUND":
                raise
        return await _asked(self._js.create_key_value(KeyValueConfig(bucket=name)), f"bucket '{name}'")

    async def kv_get(self, bucket: str, key: str) -> Value | None:
        """Return an entry, None when there is none."""
        found = await self._bucket(bucket)
        try:
            entry = await _asked(found.get(key), f"key '{key}' of bucket '{bucket}'")
        except UserNatsError as error:
            if error.code in ("NOT_FOUND", "KeyNotFoundError", "KeyDeletedError"):
                return None
            raise
        return Value(data=entry.value or b"", revision=entry.revision or 0)

    async def kv_put(self, bucket: str, key: str, data: bytes, *, create: bool) -> int:
        """Put an entry and return its revision; `create` makes a bucket that does not exist."""
        found = await self._bucket(bucket, create=create)
        return await _asked(found.put(key, data), f"key '{key}' of bucket '{bucket}'")

    async def kv_delete(self, bucket: str, key: str, *, purge: bool = False) -> None:
        """Delete an entry, or with `purge` its history too."""
        found = await self._bucket(bucket)
        await _asked(found.purge(key) if purge else found.delete(key), f"key '{key}' of bucket '{bucket}'")

    async def kv_keys(self, bucket: str, pattern: str = ">") -> list[str]:
        """Return the keys that match `pattern` (`*` and `>` as in subjects), sorted, `KEYS_MAX` at most."""
        found = await self._bucket(bucket)
        what = f"keys of bucket '{bucket}'"
        watcher = await _asked(found.watch(pattern, ignore_deletes=True, meta_only=True), what)
        keys: list[str] = []
        try:
            entry = await _asked(watcher.updates(timeout=REQUEST_SECONDS), what)  # type: ignore[no-untyped-call]
            while entry is not None and len(keys) < KEYS_MAX:
                keys.append(entry.key)
                entry = await _asked(watcher.updates(timeout=REQUEST_SECONDS), what)  # type: ignore[no-untyped-call]
        finally:
            await watcher.stop()  # type: ignore[no-untyped-call]
        return sorted(keys)

    async def _objects(self, name: str, *, create: bool = False) -> ObjectStore:
        try:
            return await _asked(self._js.object_store(name), f"object bucket '{name}'")
        except UserNatsError as error:
            if not create or error.code != "NOT_FOUND":
                raise
        config = ObjectStoreConfig(bucket=name)
        return await _asked(self._js.create_object_store(name, config=config), f"object bucket '{name}'")

    async def object_get(self, bucket: str, name: str, max_bytes: int) -> Value | None:
        """Return an object, None when there is none.

        Raises:
            UserNatsError: also when it has more than `max_bytes`.
        """
        what = f"object '{name}' of bucket '{bucket}'"
        found = await self._objects(bucket)
        try:
            info = await _asked(found.get_info(name), what)
            if (info.size or 0) > max_bytes:
                raise UserNatsError(
                    "RESULT_TOO_LARGE", f"{what} has {info.size} bytes; at most {max_bytes} are allowed"
                )
            result = await _asked(found.get(name), what)
        except UserNatsError as error:
            if error.code in ("NOT_FOUND", "ObjectNotFoundError", "ObjectDeletedError"):
                return None
            raise
        return Value(data=result.data or b"", digest=info.digest)

    async def object_put(self, bucket: str, name: str, data: bytes, *, create: bool) -> Value:
        """Put an object; the answer has its digest."""
        found = await self._objects(bucket, create=create)
        info = await _asked(found.put(name, data), f"object '{name}' of bucket '{bucket}'")
        return Value(data=b"", digest=info.digest)

    async def object_delete(self, bucket: str, name: str) -> bool:
        """Delete an object; return whether there was one."""
        found = await self._objects(bucket)
        try:
            await _asked(found.delete(name), f"object '{name}' of bucket '{bucket}'")
        except UserNatsError as error:
            if error.code in ("NOT_FOUND", "ObjectNotFoundError", "ObjectDeletedError"):
                return False
            raise
        return True

    async def object_list(self, bucket: str) -> list[tuple[str, int]]:
        """Return name and size (bytes) of the objects, `OBJECTS_MAX` at most."""
        found = await self._objects(bucket)
        try:
            infos = await _asked(found.list(ignore_deletes=True), f"object bucket '{bucket}'")
        except UserNatsError as error:
            if error.code == "NOT_FOUND":
                return []
            raise
        return sorted((info.name, info.size or 0) for info in infos[:OBJECTS_MAX])

    async def object_size(self, bucket: str, name: str) -> tuple[int, str | None] | None:
        """Return size (bytes) and digest of an object, None when there is none."""
        found = await self._objects(bucket)
        try:
            info = await _asked(found.get_info(name), f"object '{name}' of bucket '{bucket}'")
        except UserNatsError as error:
            if error.code in ("NOT_FOUND", "ObjectNotFoundError", "ObjectDeletedError"):
                return None
            raise
        return info.size or 0, info.digest

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str]) -> None:
        """Send a message to whoever listens."""
        await _asked(self._client.publish(subject, data, headers=dict(headers) or None), f"subject '{subject}'")
        await _asked(self._client.flush(timeout=int(REQUEST_SECONDS)), f"subject '{subject}'")

    async def js_publish(self, subject: str, data: bytes, headers: Mapping[str, str]) -> Stored:
        """Store a message in the stream of `subject`."""
        ack = await _asked(
            self._js.publish(subject, data, timeout=REQUEST_SECONDS, headers=dict(headers) or None),
            f"subject '{subject}'",
        )
        return Stored(stream=ack.stream, seq=ack.seq, duplicate=bool(ack.duplicate))

    async def js_get_msg(
        self, stream: str, *, seq: int | None = None, subject: str | None = None
    ) -> StreamMessage | None:
        """Return the message with a number, or the newest of a subject; None when there is none."""
        try:
            message = await _asked(self._js.get_msg(stream, seq=seq, subject=subject), f"stream '{stream}'")
        except UserNatsError as error:
            if error.code != "NOT_FOUND" or not await self._exists(stream):
                raise
            return None
        return StreamMessage(
            subject=message.subject or "",
            seq=message.seq or 0,
            data=message.data or b"",
            headers=dict(message.headers or {}),
        )

    async def _exists(self, stream: str) -> bool:
        await self.js_stream_info(stream)
        return True

    async def js_stream_info(self, stream: str) -> StreamState:
        """Return what a stream holds."""
        info = await _asked(self._js.stream_info(stream), f"stream '{stream}'")
        return StreamState(
            name=info.config.name or stream,
            subjects=tuple(info.config.subjects or ()),
            messages=info.state.messages,
            bytes=info.state.bytes,
            first_seq=info.state.first_seq,
            last_seq=info.state.last_seq,
            consumers=info.state.consumer_count,
        )


@dataclass(slots=True)
class _Open:
    client: Client
    users: int = 0
    used_at: float = 0.0
    waiting: set[asyncio.Timeout] = field(default_factory=set)  # those that use it now; a lost connection wakes them

    async def lost(self) -> None:
        """Wake up who waits for an answer that will not come."""
        for limit in self.waiting:
            limit.reschedule(asyncio.get_running_loop().time())


class UserNats:
    """Connections to users' servers, reused; an async context manager that closes them all."""

    def __init__(self) -> None:
        self._open: OrderedDict[NatsTarget, _Open] = OrderedDict()
        self._connecting = asyncio.Lock()

    async def __aenter__(self) -> UserNats:
        return self

    async def __aexit__(self, *_: object) -> None:
        clients = [kept.client for kept in self._open.values()]
        self._open.clear()
        for client in clients:
            await _close(client)

    @asynccontextmanager
    async def session(self, target: NatsTarget) -> AsyncIterator[NatsSession]:
        """Lend a connection.

        Raises:
            UserNatsError: the server cannot be reached or refuses the login, or the connection was lost.
        """
        async with self._connecting:
            kept = await self._connected(target)
        kept.users += 1
        limit = asyncio.timeout(None)
        kept.waiting.add(limit)
        try:
            async with limit:
                yield NatsSession(kept.client)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise UserNatsError("CONNECTION", f"the connection to {target.url} was lost", retryable=True) from error
        finally:
            kept.waiting.discard(limit)
            kept.users -= 1
            kept.used_at = time.monotonic()

    async def _connected(self, target: NatsTarget) -> _Open:
        now = time.monotonic()
        idle = [key for key, kept in self._open.items() if not kept.users]
        over = len(self._open) - CONNECTIONS_MAX + 1
        for position, key in enumerate(idle):
            kept = self._open[key]
            if position < over or now - kept.used_at > IDLE_SECONDS or not kept.client.is_connected:
                await _close(self._open.pop(key).client)
        found = self._open.get(target)
        if found is None or not found.client.is_connected:
            found = self._open[target] = _Open(Client())
            try:
                await _connect(found.client, target, found.lost)
            except BaseException:
                self._open.pop(target, None)
                raise
        self._open.move_to_end(target)
        found.used_at = now
        return found


async def _connect(client: Client, target: NatsTarget, lost: Callable[[], Awaitable[None]]) -> None:
    async def ignored(_: Exception) -> None:
        """The call that meets the error tells of it."""

    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await client.connect(
                servers=[part.strip() for part in target.url.split(",") if part.strip()],
                name="playhead-worker-tool",
                user=target.user,
                password=target.password,
                token=target.token,
                allow_reconnect=False,
                connect_timeout=CONNECT_SECONDS,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                error_cb=ignored,
                closed_cb=lost,
            )
    except (nats.errors.AuthorizationError, nats.errors.NoServersError, nats.errors.Error) as error:
        await _close(client)
        refused = "authorization" in str(error).lower()
        text = f"NATS at {target.url} cannot be reached: {error}"
        raise UserNatsError("AUTHORIZATION" if refused else "CONNECTION", text, retryable=not refused) from error
    except (TimeoutError, OSError, ValueError) as error:
        await _close(client)
        text = f"NATS at {target.url} cannot be reached: {type(error).__name__}"
        raise UserNatsError("CONNECTION", text, retryable=not isinstance(error, ValueError)) from error


async def _close(client: Client) -> None:
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await client.close()
    except (TimeoutError, nats.errors.Error, OSError):
        return
