"""SQL that a person gives, on the platform's database or on one that a credential names.

Each call has a connection of its own, so that no session setting survives it, and one transaction of one statement with a
time limit and bounds on what it answers. A read-only transaction cannot be made writable by its statement: the mode is
fixed by a query before it, and the extended protocol takes one statement only.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
import orjson
from pydantic_core import to_jsonable_python

from services.api.http import Call, HttpError, not_found, overloaded, unprocessable
from services.api.metrics import USER_SQL
from services.api.secret_access import opened
from services.api.sql_errors import error_text
from services.api.store import credentials
from services.api.store.queries import queries
from shared.platform.tracing import span
from shared.wire.sql_arguments import argument

_SQL = queries("user_sql")
CONNECT_SECONDS = 5.0
CALLS_AT_ONCE = 4  # connections for user SQL per process; they are not of the pool
WAIT_SECONDS = 5.0  # for one of them to be free; then 503
ROWS_AT_ONCE = 200  # read between two looks at the bounds
ANSWER_BYTES_MAX = 16 * 1024 * 1024

_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "dsn": ("connection_string", "dsn", "database_url"),
    "host": ("db_host", "host", "hostname"),
    "port": ("db_port", "port"),
    "user": ("db_user", "user", "username"),
    "password": ("db_password", "password"),
    "database": ("db_name", "database", "dbname"),
}
_REQUIRED = ("host", "user", "database")
_COMMENTS = re.compile(r"\A(?:\s+|--[^\n]*(?:\n|\Z)|/\*.*?\*/)+", re.S)
# These reach beyond the transaction: files, programs, sessions, other statements.
_NOT_READ_ONLY = frozenset({"COPY", "DO", "LOAD", "LISTEN", "NOTIFY", "PREPARE", "EXECUTE", "COMMIT", "END", "CALL"})
_PLACEHOLDER = re.compile(r"%(?:(%)|s|\((\w{1,64})\)s)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A database: `dsn` and what overrides its parts."""

    dsn: str = field(repr=False)
    parts: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a statement brought: rows by column name, None when it has no result set; `more` when rows were left out."""

    rows: list[dict[str, Any]] | None
    more: bool = False


class StatementError(Exception):
    """The database refuses the statement, or cannot be reached; the text says why and has no secret."""


def valid_dsn(text: str, place: list[str | int]) -> str:
    """Return a connection URL.

    Raises:
        HttpError: 422 when it is none.
    """
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("postgresql", "postgres") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        raise unprocessable(place, "must be a URL: postgresql://user:password@host:port/database")
    return text


async def place_of_credential(call: Call, name: str) -> Place:
    """Return the database that a credential names.

    Raises:
        HttpError: 404 when there is no such credential, 400 when it lacks fields.
    """
    row = await credentials.find(call.context.database, name)
    if row is None:
        raise not_found("Credential not found")
    data = await opened(call, row["data_encrypted"], table=credentials.TABLE, row=row["name"], operation="use")
    data = data if isinstance(data, dict) else {}
    found: dict[str, Any] = {}
    for key, spellings in _SPELLINGS.items():
        value = next((data[item] for item in spellings if data.get(item) not in (None, "")), None)
        if value is not None:
            found[key] = str(value)
    if "dsn" in found:
        return Place(dsn=valid_dsn(found.pop("dsn"), ["credential", row["name"]]))
    port = found.get("port", "5432")
    if any(key not in found for key in _REQUIRED) or not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise HttpError(400, f"Credential '{row['name']}' missing required fields")
    return Place(dsn="postgresql://", parts={**found, "port": int(port)})


def numbered(query: str, parameters: object) -> tuple[str, list[Any]]:
    """Return `query` with `$1` for each `%s` or `%(name)s`, and the parameters in that order; `%%` is a percent sign.

    A query that has `$1` itself is left as it is.

    Raises:
        HttpError: 422 when parameters and placeholders do not match.
    """
    if parameters is None:
        return query, []
    given: Sequence[Any] | Mapping[str, Any] = parameters if isinstance(parameters, list | dict) else [parameters]
    if isinstance(given, list) and re.search(r"\$[1-9]", query) and "%s" not in query:
        return query, given
    names: list[str] = []
    values: list[Any] = []

    def place(match: re.Match[str]) -> str:
        if match[1]:
            return "%"
        name = match[2]
        if name is None:
            values.append(_positional(given, len(values)))
            return f"${len(values)}"
        if name not in names:
            if not isinstance(given, dict) or name not in given:
                raise unprocessable(["body", "parameters", name], "the query names this parameter, and it is absent")
            names.append(name)
            values.append(given[name])
        return f"${names.index(name) + 1}"

    text = _PLACEHOLDER.sub(place, query)
    if isinstance(given, list) and len(values) != len(given):
        message = f"the query has {len(values)} placeholders, not {len(given)}"
        raise unprocessable(["body", "parameters"], message)
    return text, values


def _positional(given: Sequence[Any] | Mapping[str, Any], index: int) -> Any:
    if not isinstance(given, list) or index >= len(given):
        raise unprocessable(["body", "parameters"], f"the query has a placeholder number {index + 1}, and no parameter")
    return given[index]


def _first_word(query: str) -> str:
    match = re.match(r"[A-Za-z]+", _COMMENTS.sub("", query))
    return match[0].upper() if match else ""


class UserSql:
    """Runs statements, `CALLS_AT_ONCE` at a time, each at most `timeout_seconds` long and with `rows_max` rows shown."""

    def __init__(self, dsn: str, *, timeout_seconds: float, rows_max: int) -> None:
        """`dsn` is the platform's own database."""
        self._dsn = dsn
        self._timeout = timeout_seconds
        self._rows_max = rows_max
        self._free = asyncio.Semaphore(CALLS_AT_ONCE)

    def own_place(self, database: str | None = None) -> Place:
        """Return the platform's database, or another `database` of the same server."""
        if database is None:
            return Place(dsn=self._dsn)
        return Place(dsn=urlunsplit(urlsplit(self._dsn)._replace(path="/" + quote(database, safe=""))))

    @asynccontextmanager
    async def _connected(self, place: Place) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            raise overloaded("sql_busy", f"{CALLS_AT_ONCE} statements run already; send it again") from None
        try:
            connection = await _connect(place, self._timeout)
            try:
                yield connection
            finally:
                await connection.close(timeout=CONNECT_SECONDS)
        finally:
            self._free.release()

    async def run(
        self, place: Place, query: str, *, parameters: object = None, schema: str | None = None, writable: bool = False
    ) -> Answer:
        """Run one statement and return its rows.

        Raises:
            StatementError: the database refuses it or cannot be reached.
            HttpError: 422 when a parameter does not fit; 503 when too many statements run.
        """
        text, values = numbered(query, parameters)
        word = _first_word(text)
        outcome = "refused"
        try:
            if not writable and word in _NOT_READ_ONLY:
                raise StatementError(f"cannot execute {word} in a read-only transaction")
            with span("user sql", writable=writable):
                answer = await self._transact(place, text, values, schema=schema, writable=writable)
            outcome = "ok"
            return answer
        finally:
            USER_SQL.labels(outcome).inc()

    async def _transact(
        self, place: Place, text: str, values: Sequence[Any], *, schema: str | None, writable: bool
    ) -> Answer:
        async with self._connected(place) as connection:
            transaction = connection.transaction(readonly=not writable)
            try:
                await transaction.start()
                await connection.execute(_SQL["limits"], str(int(self._timeout * 1000)), schema or "")
                answer = await _answer(connection, text, values, self._rows_max)
                await transaction.commit()
            except asyncpg.PostgresError as error:
                raise StatementError(error_text(error, text)) from error
            except TimeoutError as error:
                raise StatementError(f"no answer within {self._timeout} s") from error
            except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
                raise StatementError(str(error)) from error
            return answer


async def _connect(place: Place, timeout_seconds: float) -> asyncpg.Connection[asyncpg.Record]:
    try:
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
            place.dsn,
            timeout=CONNECT_SECONDS,
            command_timeout=timeout_seconds + CONNECT_SECONDS,  # the database's own limit comes first
            server_settings={"application_name": "playhead-sql", "timezone": "UTC"},
            **place.parts,
        )
    except (OSError, ValueError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        text = str(error.args[0]) if isinstance(error, asyncpg.PostgresError) else type(error).__name__
        raise StatementError(f"connection failed: {text}") from error
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, encoder=str, decoder=orjson.loads, schema="pg_catalog")
    return connection


async def _answer(
    connection: asyncpg.Connection[asyncpg.Record], query: str, values: Sequence[Any], rows_max: int
) -> Answer:
    prepared = await connection.prepare(query)
    types = prepared.get_parameters()
    if len(types) != len(values):
        raise unprocessable(["body", "parameters"], f"the query takes {len(types)} parameters, not {len(values)}")
    arguments = []
    for index, (value, kind) in enumerate(zip(values, types, strict=True)):
        try:
            arguments.append(argument(value, kind.name))
        except ValueError as error:
            raise unprocessable(["body", "parameters", index], str(error)) from error
    if not prepared.get_attributes():
        await prepared.fetch(*arguments)
        return Answer(rows=None)
    cursor = await prepared.cursor(*arguments)
    rows: list[dict[str, Any]] = []
    size = 0
    found = await cursor.fetch(ROWS_AT_ONCE)
    while found:
        for record in found:
            if len(rows) == rows_max:
                return Answer(rows=rows, more=True)
            row = {key: _plain(value) for key, value in record.items()}
            size += len(orjson.dumps(row))
            if size > ANSWER_BYTES_MAX:
                raise StatementError(f"the result is over {ANSWER_BYTES_MAX} bytes; ask for less, with LIMIT")
            rows.append(row)
        found = await cursor.fetch(ROWS_AT_ONCE)
    return Answer(rows=rows)


def _plain(value: Any) -> Any:
    """Return a database value as JSON, in the forms of the original: numerics as text, times with `Z`."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, int):
        return value
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, asyncpg.Record):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return to_jsonable_python(value, fallback=str)
