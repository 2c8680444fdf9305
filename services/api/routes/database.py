"""The schema of the platform's database, as the CLI's `db init` and `db validate` ask for it."""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel

from services.api.auth.roles import Access
from services.api.http import Call, RouteTable, reply
from services.api.store.queries import queries

routes = RouteTable("database")

_SQL = queries("schema")
REQUIRED = ("catalog", "credential", "event", "command", "execution", "keychain", "runtime")
TABLES_MAX = 10_000  # partitions included


class InitReply(BaseModel):
    """Answer of `POST /api/db/init`; `missing` only when tables are."""

    status: str
    message: str
    tables: list[str]


class ValidateReply(BaseModel):
    """Answer of `GET /api/db/validate`."""

    status: str
    valid: bool
    tables: list[str]
    missing: list[str]
    all_tables: list[str]


async def _tables(call: Call) -> tuple[list[str], list[str], list[str]]:
    rows = await call.context.database.fetch(_SQL["tables"], TABLES_MAX)
    names = [row["name"] for row in rows]
    found = [name for name in REQUIRED if name in names]
    return names, found, [name for name in REQUIRED if name not in names]


@routes.add("POST", "/api/db/init", "Is the schema ready?", role=Access.ADMIN, response=InitReply, errors=(503,))
async def init(call: Call) -> web.StreamResponse:
    """Check the schema, as the original does; `playhead migrate` makes it, and no API starts without it."""
    _, found, missing = await _tables(call)
    if missing:
        message = "Database schema is incomplete: run `playhead migrate`"
        return reply({"status": "error", "message": message, "tables": found, "missing": missing})
    return reply({"status": "ok", "message": "Database schema ready", "tables": found})


@routes.add(
    "GET", "/api/db/validate", "Tables of the schema", role=Access.VIEWER, response=ValidateReply, errors=(503,)
)
async def validate(call: Call) -> web.StreamResponse:
    """Answer which of the tables that every client relies on are there, and every table that is."""
    names, found, missing = await _tables(call)
    return reply(
        {
            "status": "error" if missing else "ok",
            "valid": not missing,
            "tables": found,
            "missing": missing,
            "all_tables": names,
        }
    )
