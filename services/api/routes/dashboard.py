"""Numbers for the GUI's front page."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from services.api import views
from services.api.auth.roles import Access
from services.api.http import Call, RouteTable, reply
from services.api.store.queries import queries

routes = RouteTable("dashboard")

_SQL = queries("schema")
_EXECUTION = queries("execution")
RECENT_SHOWN = 10
FRESH_SECONDS = 5.0  # counting reads every row, and every open browser asks: one count serves all for so long
BEHIND_MAX = 10_000  # unfinished rows of the original that are looked up in the log

WIDGETS: tuple[dict[str, Any], ...] = (
    {"id": "execution_stats", "type": "metric", "title": "Execution Statistics", "config": None, "data": None},
    {"id": "recent_executions", "type": "table", "title": "Recent Executions", "config": {"limit": 10}, "data": None},
    {
        "id": "execution_trend",
        "type": "chart",
        "title": "Execution Trend",
        "config": {"timeRange": "24h", "chartType": "line"},
        "data": None,
    },
    {"id": "success_rate", "type": "metric", "title": "Success Rate", "config": None, "data": None},
    {"id": "active_playbooks", "type": "list", "title": "Active Playbooks", "config": {"limit": 5}, "data": None},
)


class StatsReply(BaseModel):
    """Answer of `GET /api/dashboard/stats`; `success_rate` is in percent of what has ended, 0 when nothing has."""

    status: str
    stats: dict[str, int]
    total_executions: int
    successful_executions: int
    failed_executions: int
    total_playbooks: int
    active_workflows: int
    active_executions: int
    success_rate: float
    recent_executions: list[dict[str, Any]]


class Widget(BaseModel):
    """What a tile of the page is."""

    id: str
    type: str
    title: str
    config: dict[str, Any] | None
    data: Any


class WidgetsReply(BaseModel):
    """Answer of `GET /api/dashboard/widgets`."""

    widgets: list[Widget]


class StatsCache:
    """The newest count of this process."""

    def __init__(self) -> None:
        self._made_at = -FRESH_SECONDS
        self._document: dict[str, Any] = {}
        self._counting = asyncio.Lock()  # one counts, the others wait for it

    async def get(self, call: Call) -> dict[str, Any]:
        """Return counts that are at most `FRESH_SECONDS` old."""
        async with self._counting:
            if time.monotonic() - self._made_at >= FRESH_SECONDS:
                self._document = await _count(call)
                self._made_at = time.monotonic()
            return self._document


async def _count(call: Call) -> dict[str, Any]:
    database = call.context.database
    counts = {row["status"]: row["n"] for row in await database.fetch(_SQL["counts"], BEHIND_MAX)}
    done, failed, cancelled = (counts.get(status, 0) for status in ("COMPLETED", "FAILED", "CANCELLED"))
    ended = done + failed + cancelled
    stats = {
        "total_executions": sum(counts.values()),
        "successful_executions": done,
        "failed_executions": failed,
        "total_playbooks": await database.fetchval(_SQL["playbooks"]),
        "active_workflows": sum(counts.values()) - ended,
    }
    rows = await database.fetch(_EXECUTION["list_page"], RECENT_SHOWN, 0, None)
    return {
        "status": "ok",
        "stats": stats,
        **stats,
        "active_executions": stats["active_workflows"],
        "success_rate": round(100 * done / ended, 1) if ended else 0.0,
        "recent_executions": [views.list_item(row) for row in rows],
    }


@routes.add(
    "GET", "/api/dashboard/stats", "Counts of executions", role=Access.VIEWER, response=StatsReply, errors=(503,)
)
async def stats(call: Call) -> web.StreamResponse:
    """Answer counts by status and the newest executions, a few seconds old at most."""
    return reply(await call.context.dashboard.get(call))


@routes.add("GET", "/api/dashboard/widgets", "Tiles of the front page", role=Access.VIEWER, response=WidgetsReply)
async def widgets(_: Call) -> web.StreamResponse:
    """Answer the fixed list."""
    return reply({"widgets": WIDGETS})
