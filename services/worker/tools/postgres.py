"""`postgres`: SQL on a user's database, all of a call in one transaction. Never the platform's own database."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg
import orjson

from services.worker.redaction import secret_texts
from services.worker.sql_values import argument, cell
from services.worker.tools.base import ToolBox, ToolCall, ToolError, part
from services.worker.tools.credentials import Credential, credential_of, named
from services.worker.tools.limits import (
    POSTGRES_CLOSE_SECONDS,
    POSTGRES_CONNECT_SECONDS,
    POSTGRES_IDLE_SECONDS,
    POSTGRES_POOL_IDLE_SECONDS,
    POSTGRES_POOLS_MAX,
    SQL_PARAMS_MAX,
    SQL_ROWS_AT_ONCE,
)
from services.worker.tools.sql_output import Result, output
from services.worker.tools.sql_text import Statement, bounded, split, sql_of

KIND = "postgres"
Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]"

_NAMES: Mapping[str, tuple[str, ...]] = {
    "dsn": ("connection_string", "dsn", "database_url", "connection_url", "url"),
    "host": ("db_host", "host", "hostname", "pg_host"),
    "port": ("db_port", "port", "pg_port"),
    "user": ("db_user", "user", "username", "pg_user"),
    "password": ("db_password", "password", "pg_password"),
    "database": ("db_name", "database", "dbname", "db", "pg_database"),
    "schema": ("schema", "db_schema", "search_path"),
    "sslmode": ("sslmode", "ssl_mode", "db_sslmode"),
}
# These do not run inside a transaction, or are about one: the call then has none of its own.
_ALONE = re.compile(
    r"(VACUUM|(CREATE|DROP|ALTER) (DATABASE|TABLESPACE|SUBSCRIPTION)|ALTER SYSTEM|REINDEX|CLUSTER|CALL|DISCARD ALL"
    r"|(CREATE|DROP) (UNIQUE )?INDEX CONCURRENTLY|BEGIN|START TRANSACTION|COMMIT|ROLLBACK|END|ABORT|PREPARE TRANSACTION)\b"
    r"|ALTER TYPE .* ADD VALUE\b"
)
_ENDS_INSIDE = re.compile(r"\b(COMMIT|ROLLBACK)\s*;", re.IGNORECASE)  # in a DO block: it commits by itself
_COPY = re.compile(r"COPY\b")
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_RETRYABLE_CLASSES = ("08", "40", "53", "57", "55")  # connection, rollback, resources, operator, lock not available
_NO_RETRY = frozenset({"57014", "55000"})  # query cancelled by its own limit; object not in prerequisite state


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A database to connect to. `dsn` goes first; the other members fill what it leaves out.

    Connections of another `purpose` are counted apart: who holds one of each never waits for himself.
    """

    dsn: str | None = None
    host: str | None = None
    port: int | None = None
    user: str | None = None
    password: str | None = None
    database: str | None = None
    schema: str | None = None
    sslmode: str | None = None
    purpose: str = ""


def target_of(fields: Mapping[str, Any], kind: str = KIND) -> Target:
    """Return the database that a credential's or tool's members name, in any of the known spellings.

    Raises:
        ToolError: they name none, or the port is no port.
    """
    found: dict[str, Any] = {}
    for name, spellings in _NAMES.items():
        given = next((fields[key] for key in spellings if fields.get(key) not in (None, "")), None)
        if given is not None:
            found[name] = str(given)
    if "dsn" not in found and "host" not in found:
        text = (
            "the credential names no database; it needs db_host, db_port, db_user, db_password and db_name, "
            "or connection_string"
        )
        raise ToolError(kind, "BAD_CREDENTIAL", text)
    if "dsn" in found and not found["dsn"].startswith(("postgresql://", "postgres://")):
        raise ToolError(kind, "BAD_CREDENTIAL", "`connection_string` must start with postgresql://")
    if "port" in found:
        if not (found["port"].isascii() and found["port"].isdigit() and 0 < int(found["port"][:6]) < 65_536):
            raise ToolError(kind, "BAD_CREDENTIAL", "`db_port` must be a number from 1 to 65535")
        found["port"] = int(found["port"])
    if found.get("sslmode", _SSL_MODES[0]) not in _SSL_MODES:
        raise ToolError(kind, "BAD_CREDENTIAL", f"`sslmode` must be one of {', '.join(_SSL_MODES)}")
    return Target(**found)


async def target_for(call: ToolCall, box: ToolBox) -> Target:
    """Return the database of a call: its credential, the keys written into the tool over it, or the worker's default.

    Raises:
        ToolError: no database is named, or its credential cannot be had.
    """
    own = {key: call.config[key] for keys in _NAMES.values() for key in keys if call.config.get(key) not in (None, "")}
    call.secrets.update(secret_texts(own))
    credential: Credential | None = await credential_of(call, box)
    default = box.settings.noetl_worker_postgres_auth if box.settings else ""
    if credential is None and not own and default:
        credential = await named(default, call, box)
    if credential is None and not own:
        text = (
            "a postgres tool needs `auth: <credential name>` (or `connection_string`, or `db_host` and its companions)"
        )
        raise ToolError(call.kind, "BAD_CONFIG", text)
    return target_of({**(credential.fields if credential else {}), **own}, call.kind)


@dataclass(slots=True)
class _Pool:
    pool: asyncpg.Pool[asyncpg.Record]
    users: int = 0
    used_at: float = 0.0


def _jsonb(text: str) -> bytes:
    return b"\x01" + text.encode()  # the version of the format


async def _prepare_connection(connection: Connection) -> None:
    """Have JSON decoded, and taken as JSON text."""
    options: dict[str, Any] = {"schema": "pg_catalog", "format": "binary"}
    await connection.set_type_codec("json", encoder=str.encode, decoder=orjson.loads, **options)
    await connection.set_type_codec("jsonb", encoder=_jsonb, decoder=lambda raw: orjson.loads(raw[1:]), **options)


class PostgresPools:
    """Connections to users' databases, reused per database; an async context manager that closes them all."""

    def __init__(self, *, connections_max: int) -> None:
        self._connections_max = connections_max
        self._pools: OrderedDict[Target, _Pool] = OrderedDict()

    async def __aenter__(self) -> PostgresPools:
        return self

    async def __aexit__(self, *_: object) -> None:
        pools = [kept.pool for kept in self._pools.values()]
        self._pools.clear()
        for pool in pools:
            await _close(pool)

    @property
    def size(self) -> int:
        """How many connections are open."""
        return sum(kept.pool.get_size() for kept in self._pools.values())

    @asynccontextmanager
    async def connection(self, target: Target, kind: str = KIND) -> AsyncIterator[Connection]:
        """Lend a connection; afterwards it is reset (rolled back, settings and locks gone) and kept for the next.

        Raises:
            ToolError: the server cannot be reached or refuses; what a statement does wrong is raised as asyncpg's own errors.
        """
        kept = await self._pool(target, kind)
        kept.users += 1
        try:
            try:
                connection = await kept.pool.acquire(timeout=None)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, ValueError) as error:
                raise connect_failure(error, kind) from error
            try:
                yield connection
            finally:
                with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    await asyncio.shield(
                        kept.pool.release(connection, timeout=POSTGRES_CLOSE_SECONDS)
                    )  # or it is closed
        finally:
            kept.users -= 1
            kept.used_at = time.monotonic()

    async def _pool(self, target: Target, kind: str) -> _Pool:
        await self._sweep()
        kept = self._pools.get(target)
        if kept is None:
            options = {
                name: value
                for name in ("host", "port", "user", "password", "database")
                if (value := getattr(target, name)) is not None
            }
            try:
                pool = asyncpg.create_pool(
                    target.dsn,
                    **options,
                    ssl=target.sslmode,  # type: ignore[arg-type]  # one of _SSL_MODES, see target_of
                    min_size=0,
                    max_size=self._connections_max,
                    max_inactive_connection_lifetime=POSTGRES_IDLE_SECONDS,
                    timeout=POSTGRES_CONNECT_SECONDS,
                    statement_cache_size=0,  # statements are rendered texts: hardly one comes twice; poolers dislike it
                    server_settings={
                        "application_name": "playhead-worker",
                        **({"search_path": target.schema} if target.schema else {}),
                    },
                    init=_prepare_connection,
                )
            except (ValueError, asyncpg.InterfaceError) as error:
                raise connect_failure(error, kind) from error
            kept = self._pools[target] = _Pool(pool)
            await pool
        self._pools.move_to_end(target)
        kept.used_at = time.monotonic()
        return kept

    async def _sweep(self) -> None:
        """Close pools that nobody used for long, and the least used ones over the limit."""
        now = time.monotonic()
        idle = [target for target, kept in self._pools.items() if not kept.users]
        over = len(self._pools) - POSTGRES_POOLS_MAX + 1
        for position, target in enumerate(idle):
            if position < over or now - self._pools[target].used_at > POSTGRES_POOL_IDLE_SECONDS:
                await _close(self._pools.pop(target).pool)


async def _close(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    try:
        async with asyncio.timeout(POSTGRES_CLOSE_SECONDS):
            await pool.close()
    except (TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        pool.terminate()


def connect_failure(error: Exception, kind: str) -> ToolError:
    """Return the error of a server that cannot be reached or does not let us in."""
    if isinstance(error, asyncpg.PostgresError):
        return statement_failure(error, None, kind)
    is_config = isinstance(error, (ValueError, asyncpg.InterfaceError))
    text = f"cannot connect to Postgres: {type(error).__name__}: {error}"
    return ToolError(kind, "BAD_CREDENTIAL" if is_config else "CONNECTION", text, retryable=not is_config)


def statement_failure(error: Exception, index: int | None, kind: str) -> ToolError:
    """Return the error of statement `index`, with its SQLSTATE as `PG_<state>`."""
    state = str(getattr(error, "sqlstate", None) or "")
    detail = getattr(error, "detail", None)
    message = f"{error}" + (f" ({detail})" if detail else "")
    retryable = state.startswith(_RETRYABLE_CLASSES) and state not in _NO_RETRY
    if not state:
        retryable = isinstance(error, (OSError, asyncpg.InterfaceError))
    data = (
        {} if index is None else {"errors": [{"statement_index": index, "message": message, "sqlstate": state or None}]}
    )
    return ToolError(kind, f"PG_{state}" if state else type(error).__name__, message, retryable=retryable, data=data)


def _arguments(prepared: Any, params: Sequence[Any], kind: str) -> list[Any]:
    wanted = prepared.get_parameters()
    if len(wanted) != len(params):
        raise ToolError(kind, "BAD_CONFIG", f"the statement has {len(wanted)} parameters, `params` has {len(params)}")
    arguments = []
    for place, (value, wants) in enumerate(zip(params, wanted, strict=True), 1):
        try:
            arguments.append(argument(value, wants.name))
        except ValueError as error:
            raise ToolError(kind, "BAD_CONFIG", f"params[{place - 1}] for ${place}: {error}") from error
    return arguments


def _affected(status: str | None) -> int:
    """Return the rows that a command tag counts, -1 when it counts none, as the original's."""
    last = (status or "").rsplit(" ", 1)[-1]
    return int(last) if last.isdigit() else -1


class _Run:
    """The statements of one call on one connection; `left` is how many bytes of rows may still come."""

    def __init__(self, connection: Connection, kind: str, left: int) -> None:
        self._connection, self._kind, self._left = connection, kind, left

    async def one(self, statement: Statement, params: Sequence[Any]) -> Result:
        prepared = await self._connection.prepare(statement.text, name="")
        arguments = _arguments(prepared, params, self._kind)
        columns = [attribute.name for attribute in prepared.get_attributes()]
        if not columns:
            await prepared.fetch(*arguments)
            return Result(affected=_affected(prepared.get_statusmsg()))
        if self._connection.is_in_transaction():
            rows = await self._streamed(prepared, arguments)
        else:
            rows = self._plain(await prepared.fetch(*arguments))
        return Result(columns=columns, rows=rows)

    async def _streamed(self, prepared: Any, arguments: Sequence[Any]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        cursor = await prepared.cursor(*arguments)
        chunk = await cursor.fetch(SQL_ROWS_AT_ONCE)
        while chunk:
            rows += self._plain(chunk)
            chunk = await cursor.fetch(SQL_ROWS_AT_ONCE) if len(chunk) == SQL_ROWS_AT_ONCE else []
        return rows

    def _plain(self, records: Sequence[asyncpg.Record]) -> list[dict[str, Any]]:
        rows = [{key: cell(value) for key, value in record.items()} for record in records]
        self._left -= len(orjson.dumps(rows, option=orjson.OPT_NON_STR_KEYS))
        if self._left < 0:
            text = "the rows are over the result limit of this worker; select fewer, or move them with a transfer tool"
            raise ToolError(self._kind, "RESULT_TOO_LARGE", text)
        return rows

    async def all(self, statements: Sequence[Statement], params: Sequence[Any]) -> list[Result]:
        results: list[Result] = []
        for index, statement in enumerate(statements):
            if _COPY.match(statement.head) and re.search(r"\b(STDIN|STDOUT)\b", statement.text, re.I):
                text = "COPY from STDIN or to STDOUT does not work in a postgres tool; use a transfer tool"
                raise ToolError(self._kind, "BAD_CONFIG", text)
            try:
                results.append(await self.one(statement, params))
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                raise statement_failure(error, index, self._kind) from error
        return results


def _is_alone(statement: Statement) -> bool:
    if statement.head.startswith("DO"):
        return _ENDS_INSIDE.search(statement.text) is not None
    return _ALONE.match(statement.head) is not None


async def execute(
    connection: Connection, statements: Sequence[Statement], params: Sequence[Any], *, kind: str, result_max_bytes: int
) -> list[Result]:
    """Run statements in one transaction, and return what each gave.

    When one of them cannot run in a transaction or is about one (`VACUUM`, `BEGIN`), each commits by itself.

    Raises:
        ToolError: a statement failed, and nothing of the transaction remains; or the rows are too many.
    """
    run = _Run(connection, kind, result_max_bytes)
    if not any(map(_is_alone, statements)):
        try:
            async with connection.transaction():
                return await run.all(statements, params)
        except (
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
        ) as error:  # of the end: a deferred constraint, no connection
            raise _first(error) or statement_failure(error, len(statements) - 1, kind) from error
    results = await run.all(statements, params)
    if connection.is_in_transaction():
        text = "the SQL text begins a transaction and does not end it; add COMMIT"
        raise ToolError(kind, "BAD_CONFIG", text)
    return results


@contextlib.contextmanager
def failures(kind: str) -> Iterator[None]:
    """Turn what the server or driver raises inside into a tool's error."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise _first(error) or statement_failure(error, None, kind) from error


def _first(error: Exception) -> ToolError | None:
    """Return the tool's error behind one that came while it was cleaned up: rolling back without a connection fails too."""
    return error.__context__ if isinstance(error.__context__, ToolError) else None


async def rows_of(connection: Connection, sql: str) -> list[str]:
    """Return the names of the columns that a query answers, without running it.

    Raises:
        ToolError: it answers none.
    """
    prepared = await connection.prepare(sql, name="")
    names = [attribute.name for attribute in prepared.get_attributes()]
    if not names:
        raise ToolError(KIND, "BAD_CONFIG", "the query answers no rows; it must be one SELECT")
    return names


async def limit_statements(connection: Connection, seconds: float) -> None:
    """Have the server stop a statement that runs on for `seconds`, also when this worker is gone by then."""
    await connection.execute("SELECT set_config('statement_timeout', $1, false)", str(max(int(seconds * 1000), 1)))


def _params(call: ToolCall, statements: Sequence[Statement]) -> list[Any]:
    params = call.config.get("params")
    if params in (None, "", [], {}):
        return []
    if not isinstance(params, list) or len(params) > SQL_PARAMS_MAX:
        raise ToolError(call.kind, "BAD_CONFIG", "`params` must be a list: the values of $1, $2, ...")
    if len(statements) > 1:
        raise ToolError(call.kind, "BAD_CONFIG", "`params` go with one statement; there are several")
    return params


async def run(call: ToolCall, box: ToolBox) -> dict[str, Any]:
    """Run the statements and return the last one's rows with every statement's result; see `sql_output.output`.

    Raises:
        ToolError: no database, no SQL, or a statement failed (`PG_<SQLSTATE>`; `data.errors` says which).
    """
    texts = await sql_of(call, box)
    statements = bounded(call.kind, [statement for text in texts for statement in split(text)])
    params = _params(call, statements)
    target = await target_for(call, box)
    pools = part(box.postgres, call.kind, "connections to Postgres")
    async with pools.connection(target, call.kind) as connection:
        with contextlib.suppress(asyncpg.InterfaceError):
            await limit_statements(connection, call.timeout_seconds)
        results = await execute(connection, statements, params, kind=call.kind, result_max_bytes=box.result_max_bytes)
    return output(results)
