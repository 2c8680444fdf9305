"""Starts that happen once per key: the key and the execution are stored in one transaction, so neither is lost alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.api.store.queries import queries

if TYPE_CHECKING:
    from services.api.store.database import Connection

WINDOW_SECONDS_MAX = 7 * 86_400  # a key is remembered so long at most
PURGE_ROWS = 100  # forgotten per transaction that takes keys: more than it takes on average

_SQL = queries("dedup")


@dataclass(frozen=True, slots=True, kw_only=True)
class DedupKey:
    """`key` within `scope` (the parent execution, or 0), remembered for `window_seconds`."""

    scope: int
    key: str
    window_seconds: int


Owners = dict[tuple[int, str], int]


async def take_keys(connection: Connection, wanted: Iterable[tuple[DedupKey, int]]) -> Owners:
    """Take each key for its execution and return who has it now; of two that want one key the first takes it.

    Raises:
        asyncpg.PostgresError: the database refuses.
    """
    first: dict[tuple[int, str], tuple[DedupKey, int]] = {}
    for key, execution_id in wanted:
        first.setdefault((key.scope, key.key), (key, execution_id))
    if not first:
        return {}
    ordered = [first[pair] for pair in sorted(first)]
    scopes = [key.scope for key, _ in ordered]
    keys = [key.key for key, _ in ordered]
    await connection.execute(_SQL["forget_expired"], scopes, keys, [key.window_seconds for key, _ in ordered])
    await connection.execute(_SQL["claim_keys"], scopes, keys, [execution_id for _, execution_id in ordered])
    await connection.execute(_SQL["purge"], WINDOW_SECONDS_MAX, PURGE_ROWS)
    rows = await connection.fetch(_SQL["owners"], scopes, keys)
    return {(row["subscription_id"], row["dedup_key"]): row["execution_id"] for row in rows}
