"""`noetl.audit` and `noetl.secret_access`: who changed what, and who read which secret."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from services.api.store.queries import queries

if TYPE_CHECKING:
    from services.api.store.database import Database, Row

_SQL = queries("audit")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """One write, or `calls` writes of one kind; `occurred_at` is then the newest one's."""

    occurred_at: datetime
    actor: str
    role: str | None
    method: str
    route: str
    target: dict[str, str]
    execution_id: int | None
    status: int
    address: str | None
    calls: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretAccess:
    """One access to a secret; `operation` and `outcome` as in migration 0030, and `use` when the API itself needed it."""

    credential: str
    operation: str
    outcome: str
    actor: str
    worker_id: str | None = None
    execution_id: int | None = None
    parent_execution_id: int | None = None
    key_id: str | None = None
    notes: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Which rows: from `start`, before `end`, with ids below `before`; None: no bound."""

    start: datetime | None
    end: datetime | None
    before: int | None


async def insert(database: Database, rows: Sequence[AuditRow]) -> None:
    """Store rows in one statement."""
    await database.fetchval(
        _SQL["insert"],
        [row.occurred_at for row in rows],
        [row.actor for row in rows],
        [row.role for row in rows],
        [row.method for row in rows],
        [row.route for row in rows],
        [row.target or None for row in rows],
        [row.execution_id for row in rows],
        [row.status for row in rows],
        [row.address for row in rows],
        [row.calls for row in rows],
    )


async def list_rows(
    database: Database, *, actor: str | None, route: str | None, execution_id: int | None, period: Period, limit: int
) -> list[Row]:
    """Return rows newest first; `route` may be a beginning."""
    name = "list_of_execution" if execution_id is not None else "list" if actor is None else "list_of_actor"
    return await database.fetch(_SQL[name], actor, route, execution_id, period.start, period.end, period.before, limit)


async def record_access(database: Database, access: SecretAccess) -> None:
    """Store one access to a secret."""
    await database.fetchval(
        _SQL["record_access"],
        access.credential,
        access.operation,
        access.outcome,
        access.actor,
        access.worker_id,
        access.execution_id,
        access.parent_execution_id,
        access.key_id,
        access.notes,
    )


async def list_accesses(
    database: Database, *, credential: str | None, execution_id: int | None, period: Period, limit: int
) -> list[Row]:
    """Return accesses to secrets, newest first."""
    of = "" if credential is None else "_of_credential"
    name = f"list_accesses{'_of_execution' if execution_id is not None else of}"
    return await database.fetch(_SQL[name], credential, execution_id, period.start, period.end, period.before, limit)


async def purge(database: Database, *, older_than_seconds: float, limit: int) -> None:
    """Delete up to `limit` rows of each table that are older."""
    await database.fetchval(_SQL["purge"], older_than_seconds, limit)
    await database.fetchval(_SQL["purge_accesses"], older_than_seconds, limit)
