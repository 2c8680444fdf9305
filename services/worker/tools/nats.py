"""`nats`: buckets, objects and messages of a user's own NATS."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson

from services.worker.jsontext import encoded as json_bytes
from services.worker.redaction import secret_texts
from services.worker.tools.base import ToolBox, ToolCall, ToolError, is_true, part
from services.worker.tools.credentials import credential_of
from shared.messaging.user_nats import NatsSession, NatsTarget, UserNatsError

KIND = "nats"
_NAMES: Mapping[str, tuple[str, ...]] = {
    "url": ("nats_url", "url", "servers", "server"),
    "user": ("nats_user", "user", "username"),
    "password": ("nats_password", "password"),
    "token": ("nats_token", "token"),
}
Json = dict[str, Any]


def _bad(text: str) -> ToolError:
    return ToolError(KIND, "BAD_CONFIG", text)


def _needed(call: ToolCall, *keys: str) -> str:
    given = next((call.config[key] for key in keys if call.config.get(key) not in (None, "")), None)
    if given is None:
        raise _bad(f"operation {_operation(call)} needs `{keys[0]}`")
    return str(given)


def _operation(call: ToolCall) -> str:
    return str(call.config.get("operation") or call.config.get("op") or "").lower().strip()


def _bytes(call: ToolCall, *keys: str) -> bytes:
    given = next((call.config[key] for key in keys if key in call.config), None)
    if given is None:
        raise _bad(f"operation {_operation(call)} needs `{keys[0]}`")
    return given.encode() if isinstance(given, str) else json_bytes(given)


def _value(data: bytes) -> Any:
    """Return data as JSON when it is some, else text, else base64."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    try:
        return data.decode()
    except UnicodeDecodeError:
        return base64.b64encode(data).decode()


def _headers(call: ToolCall) -> dict[str, str]:
    given = call.config.get("headers") or {}
    if not isinstance(given, Mapping):
        raise _bad("`headers` must be an object")
    return {str(name): str(value) for name, value in given.items()}


def _creates(call: ToolCall) -> bool:
    create = call.config.get("create")
    return create in (None, "") or is_true(create)


async def _kv_get(call: ToolCall, nats: NatsSession, _limit: int) -> Json:
    bucket, key = _needed(call, "bucket"), _needed(call, "key")
    found = await nats.kv_get(bucket, key)
    if found is None:
        return {"status": "not_found", "bucket": bucket, "key": key, "value": None}
    value = _value(found.data)
    return {"status": "success", "bucket": bucket, "key": key, "value": value, "revision": found.revision}


async def _kv_put(call: ToolCall, nats: NatsSession, _limit: int) -> Json:
    bucket, key = _needed(call, "bucket"), _needed(call, "key")
    revision = await nats.kv_put(bucket, key, _bytes(call, "value", "data"), create=_creates(call))
    return {"status": "success", "bucket": bucket, "key": key, "revision": revision}


async def _kv_delete(call: ToolCall, nats: NatsSession, _limit: int) -> Json:
    bucket, key = _needed(call, "bucket"), _needed(call, "key")
    await nats.kv_delete(bucket, key, purge=_operation(call) == "kv_purge")
    return {"status": "success", "bucket": bucket, "key": key, "deleted": True}


async def _kv_keys(call: ToolCall, nats: NatsSession, _limit: int) -> Json:
    bucket = _needed(call, "bucket")
    pattern = str(call.config.get("pattern") or call.config.get("filter") or call.config.get("key") or ">")
    keys = await nats.kv_keys(bucket, pattern)
    return {"status": "success", "bucket": bucket, "keys": keys, "count": len(keys)}


async def _object_get(call: ToolCall, nats: NatsSession, limit: int) -> Json:
    bucket, name = _needed(call, "bucket"), _needed(call, "name", "key")
    found = await nats.object_get(bucket, name, limit)
    if found is None:
        return {"status": "not_found", "bucket": bucket, "name": name, "data": None}
    shown = {"data": _value(found.data), "size": len(found.data), "digest": found.digest}
    return {"status": "success", "bucket": bucket, "name": name, **shown}


async def _object_put(call: ToolCall, nats: NatsSession, _limit: int) -> Json:
    bucket, name, data = _needed(call, "bucket"), _needed(call, "name", "key"), _bytes(call, "data", "value")
    stored = await nats.object_put(bucket, name, data, create=_creates(call))
    return {"status": "success", "bucket": bucket, "name": name, "size": len(data), "digest": stored.digest}


async def _object_delete(call: ToolCall, nats: NatsSession, _limit: int) -> Json:
    bucket, name = _needed(call, "bucket"), _needed(call, "name", "key")
    existed = await nats.object_delete(bucket, name)
    return {"status": "success" if existed else "not_found", "bucket": bucket, "name": name, "deleted": existed}


async def _object_list(call: ToolCall, nats: NatsSession, _limit: int) -> Json:
    bucket = _needed(call, "bucket")
    objects = [{"name": name, "size": size} for name, size in await nats.object_list(bucket)]
    return {"status": "success", "bucket": bucket, "objects": objects, "count": len(objects)}


async def _object_info(call: ToolCall, nats: NatsSession, _limit: int) -> Json:
    bucket, name = _needed(call, "bucket"), _needed(call, "name", "key")
    found = await nats.object_size(bucket, name)
    if found is None:
        return {"status": "not_found", "bucket": bucket, "name": name}
    return {"status": "success", "bucket": bucket, "name": name, "size": found[0], "digest": found[1]}


async def _publish(call: ToolCall, nats: NatsSession, _limit: int) -> Json:
    subject, data = _needed(call, "subject"), _bytes(call, "data", "payload", "message", "value")
    if _operation(call) == "publish":
        await nats.publish(subject, data, _headers(call))
        return {"status": "success", "subject": subject}
    stored = await nats.js_publish(subject, data, _headers(call))
    shown = {"stream": stored.stream, "seq": stored.seq, "sequence": stored.seq, "duplicate": stored.duplicate}
    return {"status": "success", "subject": subject, **shown}


async def _js_get_msg(call: ToolCall, nats: NatsSession, _limit: int) -> Json:
    stream = _needed(call, "stream")
    given = next((str(call.config[key]) for key in ("seq", "sequence") if call.config.get(key) not in (None, "")), None)
    subject = call.config.get("subject")
    if given is not None and not (given.isascii() and given.isdigit()):
        raise _bad("`seq` must be a number")
    if given is None and not subject:
        if not is_true(call.config.get("last")):
            raise _bad("operation js_get_msg needs `seq`, `subject` or `last: true`")
        given = str((await nats.js_stream_info(stream)).last_seq)
    found = await nats.js_get_msg(
        stream, seq=int(given[:19]) if given else None, subject=None if given else str(subject)
    )
    if found is None:
        return {"status": "not_found", "stream": stream, "data": None}
    shown = {"subject": found.subject, "seq": found.seq, "sequence": found.seq, "headers": dict(found.headers)}
    return {"status": "success", "stream": stream, "data": _value(found.data), **shown}


async def _js_stream_info(call: ToolCall, nats: NatsSession, _limit: int) -> Json:
    info = await nats.js_stream_info(_needed(call, "stream"))
    config: Json = {"name": info.name, "subjects": list(info.subjects)}
    state = {
        "messages": info.messages,
        "bytes": info.bytes,
        "first_seq": info.first_seq,
        "last_seq": info.last_seq,
        "consumer_count": info.consumers,
    }
    return {"status": "success", "stream": info.name, "config": config, "state": state, **config, **state}


Operation = Callable[[ToolCall, NatsSession, int], Awaitable[Json]]
OPERATIONS: Mapping[str, Operation] = {
    "kv_get": _kv_get,
    "kv_put": _kv_put,
    "kv_delete": _kv_delete,
    "kv_purge": _kv_delete,
    "kv_keys": _kv_keys,
    "object_get": _object_get,
    "object_put": _object_put,
    "object_delete": _object_delete,
    "object_list": _object_list,
    "object_info": _object_info,
    "publish": _publish,
    "js_publish": _publish,
    "js_get_msg": _js_get_msg,
    "js_stream_info": _js_stream_info,
}


async def _target(call: ToolCall, box: ToolBox) -> NatsTarget:
    own = {key: call.config[key] for keys in _NAMES.values() for key in keys if call.config.get(key) not in (None, "")}
    call.secrets.update(secret_texts(own))
    credential = await credential_of(call, box)
    fields = {**(credential.fields if credential else {}), **own}
    found = {
        name: str(value)
        for name, keys in _NAMES.items()
        if (value := next((fields[key] for key in keys if fields.get(key) not in (None, "")), None)) is not None
    }
    if "url" not in found:
        raise _bad("a nats tool needs `auth: <credential name>` with nats_url, or `url`")
    url = next(fields[key] for key in _NAMES["url"] if fields.get(key) not in (None, ""))
    if isinstance(url, list) and url and all(isinstance(one, str) for one in url):
        found["url"] = ",".join(url)
    elif not isinstance(url, str) or not url.strip(", "):
        raise _bad("`nats_url` must be an address like nats://host:4222, or several with commas")
    for address in found["url"].split(","):
        password = urlsplit(address.strip()).password
        if password:
            call.secrets.add(password)
    return NatsTarget(**found)


async def run(call: ToolCall, box: ToolBox) -> Json:
    """Do one operation. What is not there has `status: not_found`, and is no error.

    Raises:
        ToolError: no server, no such bucket or stream, or a refusal.
    """
    name = _operation(call)
    operation = OPERATIONS.get(name)
    if operation is None:
        raise _bad(f"`operation` must be one of {', '.join(OPERATIONS)}, not '{name}'")
    target = await _target(call, box)
    try:
        async with part(box.nats, KIND, "connections to NATS").session(target) as session:
            return {**await operation(call, session, box.result_max_bytes), "operation": name}
    except UserNatsError as error:
        raise ToolError(KIND, error.code, str(error), retryable=error.retryable) from error
