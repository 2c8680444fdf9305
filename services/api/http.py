"""The HTTP edge: typed routes, JSON answers, errors in the original's shape `{"detail": ...}`.

A route is a function `async def handler(call: Call) -> web.StreamResponse` under `@routes.add(...)`. The pydantic models
named there validate the request and appear in the served OpenAPI, so the document cannot drift from the code.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from services.api.auth.actor import NOBODY, Actor
from services.api.auth.roles import Access, is_internal
from services.api.json_body import BodyError
from services.api.json_body import parse as parse_json
from services.api.validation import INTEGER_TEXT, error_item, validation_detail
from shared.wire.types import ID_MAX

if TYPE_CHECKING:
    from services.api.context import ApiContext

BODY_SECONDS = 60.0  # for a request body to arrive; a client slower than that is answered 408
_JSON_TYPE = re.compile(r"application/(?:[a-z0-9.+-]+\+)?json")
_INTEGER = re.compile(r"[+-]?[0-9]{1,100}")  # longer is refused before it is parsed


class HttpError(Exception):
    """A request that is answered with `status` and `{"detail": detail, **more}`; raised anywhere below a route."""

    def __init__(
        self,
        status: int,
        detail: object,
        *,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = dict(more or {})


def not_found(detail: str) -> HttpError:
    """Return a 404."""
    return HttpError(404, detail)


def unprocessable(
    location: list[str | int], message: str, value: object = None, *, kind: str = "value_error"
) -> HttpError:
    """Return a 422 in the validation shape of the original: a list that names the place and the fix."""
    return HttpError(422, [error_item(location, message, value, kind=kind)])


def overloaded(code: str, message: str, *, retry_after_seconds: int = 1) -> HttpError:
    """Return a 503 with Retry-After: nothing was stored, the caller may send the same request again."""
    return HttpError(503, {"code": code, "message": message}, headers={"Retry-After": str(retry_after_seconds)})


def _default(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump()
    raise TypeError(f"{type(value).__name__} is not JSON")


def dumps(value: object) -> bytes:
    """Serialise `value`; datetimes become ISO 8601 with `+00:00`."""
    return orjson.dumps(value, default=_default, option=orjson.OPT_NON_STR_KEYS)


def reply(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a JSON answer."""
    return web.Response(body=dumps(value), status=status, content_type="application/json", headers=headers)


def error_reply(error: HttpError, *, rust: bool = False) -> web.Response:
    """Return the answer of an `HttpError`; with `rust` also under the keys that clients of the Rust server read."""
    document: dict[str, object] = {"detail": error.detail, **error.more}
    if rust:
        document |= {"error": _error_text(error.detail), "status": error.status}
    return reply(document, status=error.status, headers=error.headers)


def _error_text(detail: object) -> str:
    if isinstance(detail, Mapping):
        return str(detail.get("message") or detail.get("code"))
    if isinstance(detail, list):
        return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in detail)
    return str(detail)


@dataclass(slots=True)
class Call:
    """One request, validated: what a route handler sees."""

    context: ApiContext
    request: web.Request
    actor: Actor = NOBODY
    body: Any = None
    query: Any = None

    @property
    def client(self) -> str:
        """Whom per-client limits count."""
        return self.actor.client(self.request.remote)

    def path(self, name: str) -> str:
        """Return the path parameter `name`."""
        return self.request.match_info[name]

    def path_id(self, name: str) -> int:
        """Return the path parameter `name` as an id; one that no row can have (0, negative) is the caller's to not find.

        Raises:
            HttpError: 422 when it is no 64-bit integer.
        """
        text = self.request.match_info[name]
        if not _INTEGER.fullmatch(text):
            raise unprocessable(["path", name], INTEGER_TEXT, text, kind="int_parsing")
        value = int(text)
        if not -ID_MAX <= value <= ID_MAX:
            raise unprocessable(["path", name], f"{name} must lie below 2^63", text, kind="int_parsing_size")
        return value


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSpec:
    """One public operation, as routed and as documented."""

    method: str
    path: str
    handler: Handler
    summary: str
    tag: str
    role: Access  # who may call; there is no default, so that no route is open by oversight
    elevated: tuple[str, Access] | None = None  # a query switch that asks for more: ("include_data", Access.WORKER)
    body: type[BaseModel] | None = None
    body_required: bool = True
    query: type[BaseModel] | None = None
    response: type[BaseModel] | None = None
    status: int = 200
    errors: tuple[int, ...] = ()
    empty: tuple[int, ...] = ()  # further good statuses, without a body
    media_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()  # request headers with their meaning; all optional
    rust_errors: bool = False  # errors also as the Rust server words them, for routes that only it has
    body_bytes_max: int | None = None  # None: NOETL_MAX_BODY_BYTES

    @property
    def internal(self) -> bool:
        """Whether the route is behind the internal token."""
        return is_internal(self.role)


@dataclass(slots=True)
class RouteTable:
    """The routes of one group, in the order in which they match."""

    tag: str
    specs: list[RouteSpec] = field(default_factory=list)

    def add(self, method: str, path: str, summary: str, **options: Any) -> Callable[[Handler], Handler]:
        """Register the decorated handler under `method path`; `options` are the fields of `RouteSpec`."""

        def register(handler: Handler) -> Handler:
            self.specs.append(
                RouteSpec(method=method, path=path, handler=handler, summary=summary, tag=self.tag, **options)
            )
            return handler

        return register


async def read_json(request: web.BaseRequest, *, required: bool) -> object:
    """Return the request body as JSON; None when it is absent and not required.

    Raises:
        HttpError: 422 when the body is missing or no JSON, 413 when it is over the limit, 408 when it does not come, 400 when
            it breaks off.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            raw = await request.read()
    except TimeoutError as error:
        raise HttpError(408, f"the request body did not arrive within {BODY_SECONDS:.0f} seconds") from error
    except web.HTTPRequestEntityTooLarge as error:
        raise HttpError(413, f"request body is over the limit: {error.text}; store large data by reference") from error
    except web.RequestPayloadError as error:
        raise HttpError(400, "the request body breaks off, or is not in its Content-Encoding") from error
    value = _parsed(request, raw) if raw else None
    if value is None and required:
        raise unprocessable(["body"], "Field required", kind="missing")
    return value


def _parsed(request: web.BaseRequest, raw: bytes) -> object:
    """Return the JSON of a body; a body that says to be something else is text, which no route takes."""
    declared = request.headers.get("Content-Type")
    if declared is not None and not _JSON_TYPE.fullmatch(declared.partition(";")[0].strip().lower()):
        return raw.decode(errors="replace")
    try:
        return parse_json(raw)
    except BodyError as error:
        raise HttpError(422, error.detail) from error


def _query_dict(request: web.Request) -> dict[str, str]:
    """Return the query; of a parameter that stands twice the last one counts."""
    return {key: value for key, value in request.query.items()}


async def build_call(
    context: ApiContext,
    spec: RouteSpec,
    request: web.Request,
    actor: Actor = NOBODY,
    *,
    body_bytes_max: int | None = None,
) -> Call:
    """Validate `request` of `actor` against `spec`; a body may have `body_bytes_max`, None: what the server allows.

    Raises:
        HttpError: 413 or 422.
    """
    call = Call(context=context, request=request, actor=actor)
    if spec.query is not None:
        try:
            call.query = spec.query.model_validate(_query_dict(request))
        except ValidationError as error:
            raise HttpError(422, validation_detail(error, "query")) from error
    if spec.body is not None:
        source: web.BaseRequest = request
        limit = spec.body_bytes_max or body_bytes_max
        if limit is not None:
            source = request.clone(client_max_size=limit)
        data = await read_json(source, required=spec.body_required)
        try:
            call.body = spec.body.model_validate({} if data is None else data, from_attributes=True)
        except ValidationError as error:
            raise HttpError(422, validation_detail(error, "body")) from error
        except RecursionError as error:
            raise unprocessable(["body"], "the body is nested too deeply") from error
    return call
