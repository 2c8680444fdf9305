"""What route handlers share: the open resources of one API process, built once in `app.py`."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.api.access import AccessControl
    from services.api.bus import Bus
    from services.api.children import ChildWatch
    from services.api.crypto import Cipher
    from services.api.identity import IdSource
    from services.api.playbooks import PlaybookCatalog
    from services.api.routes.dashboard import StatsCache
    from services.api.routes.system import MemoryProfiler
    from services.api.store.database import Database
    from services.api.store.stream_writer import StreamWriter
    from services.api.timers import TimerClock
    from services.api.user_sql import UserSql
    from services.api.wallet import Wallet
    from shared.platform.settings import ApiSettings


@dataclass(slots=True)
class ApiContext:
    """The resources of one API process."""

    settings: ApiSettings
    database: Database
    writer: StreamWriter
    ids: IdSource
    bus: Bus
    cipher: Cipher
    wallet: Wallet
    playbooks: PlaybookCatalog
    access: AccessControl
    user_sql: UserSql
    dashboard: StatsCache
    profiler: MemoryProfiler
    stopping: asyncio.Event
    started_at_monotonic: float
    children: ChildWatch = field(init=False)
    timers: TimerClock = field(init=False)
    results_deleted: Counter[str] = field(default_factory=Counter)  # by cause, since the start
