"""One pass of the reconciler: bounded, idempotent, safe to run on every replica at once (SKIP LOCKED).

Postgres is the truth and NATS the wake-up, so everything that a crash or a lost message can leave behind is visible in a
table: undecided events, commands nobody claimed, claims of dead workers, due timers, outbox rows in flight.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from services.api.children import reconcile_children
from services.api.store import results, stages
from services.api.store.queries import queries
from services.api.timers import fire_due

if TYPE_CHECKING:
    from services.api.context import ApiContext

log = logging.getLogger(__name__)

_SQL = queries("reconcile")
_OUTBOX = queries("outbox")


def _count(tag: str) -> int:
    return int(tag.rpartition(" ")[2])


async def reconcile(context: ApiContext, *, limit: int) -> dict[str, Any]:
    """Heal at most `limit` rows of each kind and return what was found.

    Raises:
        asyncpg.PostgresError: the database is unavailable; the next pass tries again.
    """
    settings, database = context.settings, context.database
    async with database.connection() as connection:
        released = _count(await connection.execute(_OUTBOX["release_expired"], limit))
        await connection.execute(_OUTBOX["purge_published"], settings.noetl_outbox_retention_seconds, limit * 10)
        await connection.execute(_SQL["mark_workers_offline"], settings.noetl_runtime_offline_seconds)
        notified = await connection.fetchrow(
            _SQL["renotify"],
            settings.noetl_command_reaper_pending_retry_seconds,
            settings.noetl_command_worker_heartbeat_stale_seconds,
            settings.noetl_server_url,
            settings.nats_subject,
            settings.noetl_command_routing_enabled,
            limit,
        )
        undecided = await connection.fetch(_SQL["undecided"], settings.noetl_reconcile_undecided_seconds, limit)
    await stages.close_ended(database, limit=limit, next_id=context.ids.next)
    context.results_deleted["ttl"] += await results.purge_expired(database, limit=limit)
    fired = await fire_due(context, limit=limit)
    children = await reconcile_children(context, limit=limit)
    pending, reclaimed = (notified["pending"], notified["reclaimed"]) if notified is not None else (0, 0)
    if released or pending or reclaimed:
        context.bus.kick()
        log.info("reconciled", extra={"outbox_released": released, "notified": pending, "reclaimed": reclaimed})
    return {
        "undecided": [row["execution_id"] for row in undecided],
        "notified": pending,
        "reclaimed": reclaimed,
        "timers_fired": fired,
        "children": children,
        "outbox_released": released,
    }
