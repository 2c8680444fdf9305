"""SQL by request, sessions of the gateway's users, and a helper of one fixture."""

from __future__ import annotations

import base64
import logging
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from services.api.auth.roles import Access
from services.api.http import Call, HttpError, RouteTable, reply, unprocessable
from services.api.inputs import Key, OptionalKey
from services.api.models import NAME_MAX, Lax, Text, storable
from services.api.store.queries import queries
from services.api.user_sql import Place, StatementError, place_of_credential, valid_dsn

log = logging.getLogger(__name__)

routes = RouteTable("sql")

_SQL = queries("user_sql")
QUERY_CHARS_MAX = 1_000_000
PARAMETERS_MAX = 1000
WRITE_HINTS = {
    "never": "\nHINT:  NOETL_SQL_WRITE=never on this server",
    "asked": '\nHINT:  send "allow_write": true; for clients that cannot, NOETL_SQL_WRITE=always',
    "always": "",
}

SqlText = Annotated[Text, Field(max_length=QUERY_CHARS_MAX)]


class ExecuteSqlBody(Lax):
    """Body of `POST /api/postgres/execute`: one statement, as `query`, `query_base64` or `procedure`."""

    query: SqlText | None = None
    query_base64: str | None = Field(None, max_length=2 * QUERY_CHARS_MAX, description="base64 of UTF-8")
    procedure: SqlText | None = None
    parameters: Any = Field(None, description="for `%s` a list, for `%(name)s` an object, or one value")
    schema_: OptionalKey = Field(None, alias="schema", description="where names are looked for first")
    database: OptionalKey = Field(None, description="another database of the same server")
    credential: OptionalKey = Field(None, description="name of a credential; default: the platform's own database")
    connection_string: OptionalKey = Field(None, description="postgresql://..., wins over `credential`")
    allow_write: bool = Field(False, description="the statement may write, unless NOETL_SQL_WRITE is `never`")


class ExecuteSqlReply(BaseModel):
    """Answer of `POST /api/postgres/execute`; a statement that the database refuses is `error` with status 200."""

    status: str
    result: list[dict[str, Any]] | None
    error: str | None


class SessionBody(Lax):
    """Body of `POST /api/auth/session/validate`."""

    session_token: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=NAME_MAX), AfterValidator(storable)
    ]
    credential: OptionalKey = Field("pg_auth", description="names the database with the schema `auth`")


class SessionUser(BaseModel):
    """Whose session it is."""

    user_id: int
    email: str
    display_name: str
    roles: list[str]


class SessionReply(BaseModel):
    """Answer of `POST /api/auth/session/validate`; `status` is `error` when the database cannot tell."""

    status: str
    valid: bool
    user: SessionUser | None
    expires_at: str | None
    error: str | None


class AccessBody(SessionBody):
    """Body of `POST /api/auth/check-playbook-access`."""

    playbook_path: Key
    action: Literal["execute", "view", "modify"] = "execute"


class AccessReply(BaseModel):
    """Answer of `POST /api/auth/check-playbook-access`: `data.allowed`, whose session it is, and why."""

    status: str
    data: dict[str, Any]


class WeatherReply(BaseModel):
    """Answer of `GET /api/postgres/weather_alert_summary/{execution_id}/last`."""

    status: str
    row: dict[str, Any] | None
    error: str | None


def _query_of(body: ExecuteSqlBody) -> str:
    if body.query and body.query.strip():
        return body.query
    if body.query_base64:
        try:
            text = base64.b64decode(body.query_base64, validate=True).decode()
        except ValueError as error:  # no base64, or no UTF-8
            raise unprocessable(["body", "query_base64"], "must be base64 of UTF-8 text") from error
        if "\x00" not in text and text.strip():
            return text
    if body.procedure and body.procedure.strip():
        return body.procedure
    raise HttpError(400, "query or procedure is required")


async def _place(call: Call, body: ExecuteSqlBody) -> Place:
    if body.connection_string is not None:
        return Place(dsn=valid_dsn(body.connection_string, ["body", "connection_string"]))
    if body.credential is not None:
        place = await place_of_credential(call, body.credential)
        return Place(dsn=place.dsn, parts={**place.parts, **({"database": body.database} if body.database else {})})
    return call.context.user_sql.own_place(body.database)


@routes.add(
    "POST",
    "/api/postgres/execute",
    "Run one SQL statement",
    role=Access.ADMIN,
    body=ExecuteSqlBody,
    response=ExecuteSqlReply,
    errors=(400, 404, 503),
)
async def execute_sql(call: Call) -> web.StreamResponse:
    """Run it in a read-only transaction, unless the setting and `allow_write` let it write. `X-Playhead-More` tells that rows
    were left out."""
    body: ExecuteSqlBody = call.body
    query = _query_of(body)
    if isinstance(body.parameters, list | dict) and len(body.parameters) > PARAMETERS_MAX:
        raise unprocessable(["body", "parameters"], f"at most {PARAMETERS_MAX} parameters")
    mode = call.context.settings.noetl_sql_write
    writable = mode == "always" or (mode == "asked" and body.allow_write)
    if body.allow_write and not writable:
        raise HttpError(400, "allow_write: NOETL_SQL_WRITE=never on this server")
    place = await _place(call, body)
    try:
        answer = await call.context.user_sql.run(
            place, query, parameters=body.parameters, schema=body.schema_, writable=writable
        )
    except StatementError as error:
        hint = WRITE_HINTS[mode] if "in a read-only transaction" in str(error) and not writable else ""
        return reply({"status": "error", "result": None, "error": f"{error}{hint}"})
    log.info("sql executed", extra={"writable": writable, "credential": body.credential})
    headers = {"X-Playhead-More": "true"} if answer.more else None
    return reply({"status": "ok", "result": answer.rows, "error": None}, headers=headers)


@routes.add(
    "POST",
    "/api/auth/session/validate",
    "Validate a session of the gateway's users",
    role=Access.RUNNER,
    body=SessionBody,
    response=SessionReply,
    errors=(400, 404, 503),
)
async def validate_session(call: Call) -> web.StreamResponse:
    """Look the token up in the users' own database, where the auth playbooks keep sessions."""
    body: SessionBody = call.body
    document: dict[str, Any] = {"status": "ok", "valid": False, "user": None, "expires_at": None, "error": None}
    place = await place_of_credential(call, body.credential or "pg_auth")
    try:
        answer = await call.context.user_sql.run(place, _SQL["session"], parameters=[body.session_token])
    except StatementError as error:
        return reply({**document, "status": "error", "error": str(error)})
    if not answer.rows:
        return reply(document)
    row = answer.rows[0]
    user = {key: row[key] for key in ("user_id", "email", "display_name", "roles")}
    return reply({**document, "valid": True, "user": user, "expires_at": row["expires_at"]})


@routes.add(
    "POST",
    "/api/auth/check-playbook-access",
    "May the owner of a session run a playbook?",
    role=Access.RUNNER,
    body=AccessBody,
    response=AccessReply,
    errors=(400, 404, 503),
)
async def check_playbook_access(call: Call) -> web.StreamResponse:
    """Decide by the roles in the users' own database, as the playbook of the same name does."""
    body: AccessBody = call.body
    place = await place_of_credential(call, body.credential or "pg_auth")
    parameters = [body.session_token, body.playbook_path, body.action]
    data: dict[str, Any] = {"allowed": False, "playbook_path": body.playbook_path, "action": body.action}
    try:
        answer = await call.context.user_sql.run(place, _SQL["playbook_access"], parameters=parameters)
    except StatementError as error:
        return reply({"status": "error", "data": {**data, "error": str(error), "message": "Access check failed"}})
    if not answer.rows:
        return reply({"status": "success", "data": {**data, "message": "Access denied - no active session"}})
    row = answer.rows[0]
    user = {key: row[key] for key in ("user_id", "email", "display_name")}
    granted = row["allowed"] is True
    message = f"Access granted to {body.action} playbook" if granted else "Access denied - insufficient permission"
    return reply({"status": "success", "data": {**data, "allowed": granted, "user": user, "message": message}})


@routes.add(
    "GET",
    "/api/postgres/weather_alert_summary/{execution_id}/last",
    "The newest weather summary of an execution",
    role=Access.VIEWER,
    response=WeatherReply,
    errors=(503,),
)
async def last_weather_summary(call: Call) -> web.StreamResponse:
    """Answer a row that one fixture of the original writes; without its table, the error of the database."""
    execution_id = call.path_id("execution_id")
    query = _SQL["last_weather_summary"]
    try:
        sql = call.context.user_sql
        answer = await sql.run(sql.own_place(), query, parameters=[str(execution_id)])
    except StatementError as error:
        return reply({"status": "error", "row": None, "error": str(error)})
    return reply({"status": "ok", "row": answer.rows[0] if answer.rows else None, "error": None})
