"""The audit trail of writes: who called what, with which outcome. Never a body, a header or a query.

Rows are collected in memory and stored in batches, so that a write costs no second transaction; a crash loses those of the last
half second. Calls of the worker protocol and of our own services, thousands a second, are counted per caller, route and status
and stored once a minute: the event log itself says what each of them did.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import asyncpg

from services.api.metrics import AUDIT_LOST
from services.api.store import audit as store
from services.api.store.audit import AuditRow

if TYPE_CHECKING:
    from services.api.store.database import Database

log = logging.getLogger(__name__)

ROWS_MAX = 20_000  # waiting at most; beyond, rows are lost, counted and logged
COUNTED_MAX = 5_000  # different callers, routes and statuses per minute; beyond, they are listed one by one
BATCH_ROWS = 1_000  # per statement
TARGET_CHARS_MAX = 200  # of one path parameter
COUNT_SECONDS = 60.0  # counted calls are stored so often


Kind = tuple[str, str | None, str, str, int, str | None]  # actor, role, method, route, status, address


class AuditTrail:
    """Collects rows and stores them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows: list[AuditRow] = []
        self._counted: dict[Kind, int] = {}
        self._storing = asyncio.Lock()

    def record(self, row: AuditRow) -> None:
        """Keep a row; when too many wait it is lost, and that is counted."""
        if len(self._rows) >= ROWS_MAX:
            AUDIT_LOST.inc()
            return
        self._rows.append(row)

    def count(self, kind: Kind) -> None:
        """Count one call of a kind; when there are too many kinds it gets a row of its own."""
        known = self._counted.get(kind, 0)
        if known or len(self._counted) < COUNTED_MAX:
            self._counted[kind] = known + 1
        else:
            self.record(_counted_row(kind, 1))

    async def _store(self, batch: list[AuditRow]) -> None:
        """Store rows; one that the database refuses is lost alone, so that it does not hold up the others."""
        try:
            await store.insert(self._database, batch)
        except (asyncpg.DataError, ValueError) as error:  # the driver's own refusals are ValueErrors
            if len(batch) == 1:
                AUDIT_LOST.inc()
                log.error("audit row lost", extra={"error": type(error).__name__, "route": batch[0].route})  # noqa: TRY400 - it would repeat the row
                return
            for row in batch:
                await self._store([row])

    async def flush(self, *, counts: bool = False) -> None:
        """Store what waits; with `counts` also the counted calls. Rows that cannot be stored are kept for the next time."""
        async with self._storing:
            if counts:
                for kind, calls in self._counted.items():
                    self.record(_counted_row(kind, calls))
                self._counted.clear()
            while self._rows:
                batch = self._rows[:BATCH_ROWS]
                try:
                    await self._store(batch)
                except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                    log.warning("audit rows wait", extra={"error": type(error).__name__, "rows": len(self._rows)})
                    return
                del self._rows[: len(batch)]


def _counted_row(kind: Kind, calls: int) -> AuditRow:
    actor, role, method, route, status, address = kind
    return AuditRow(
        occurred_at=datetime.now(UTC),
        actor=actor,
        role=role,
        method=method,
        route=route,
        target={},
        execution_id=None,
        status=status,
        address=address,
        calls=calls,
    )


def audit_row(
    *,
    actor: str,
    role: str | None,
    method: str,
    route: str,
    parameters: dict[str, str],
    status: int,
    address: str | None,
) -> AuditRow:
    """Return the row of one write, its parameters bounded."""
    target = {name: value[:TARGET_CHARS_MAX].replace("\x00", "") for name, value in parameters.items()}
    execution = target.get("execution_id", "")
    number = int(execution) if execution.isascii() and execution.isdigit() and len(execution) <= 18 else None
    return AuditRow(
        occurred_at=datetime.now(UTC),
        actor=actor,
        role=role,
        method=method,
        route=route,
        target=target,
        execution_id=number,
        status=status,
        address=address,
    )
