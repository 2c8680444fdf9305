"""Subscriptions: documents of kind `subscription` whose state is the newest `subscription.*` event of their own stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from services.api.http import HttpError, not_found
from services.api.store.database import fetch_one
from services.api.store.queries import queries

if TYPE_CHECKING:
    from services.api.store.database import Connection, Database, Row

_SQL = queries("subscription")


class SubscriptionState(StrEnum):
    """REGISTERED -> ACTIVE <-> PAUSED -> DRAINING -> DEACTIVATED; a deactivated one may be activated again."""

    REGISTERED = "REGISTERED"
    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    DRAINING = "DRAINING"
    DEACTIVATED = "DEACTIVATED"


_S = SubscriptionState
STATE_OF_EVENT = {
    "subscription.registered": _S.REGISTERED,
    "subscription.activated": _S.ACTIVE,
    "subscription.resumed": _S.ACTIVE,
    "subscription.paused": _S.PAUSED,
    "subscription.draining": _S.DRAINING,
    "subscription.deactivated": _S.DEACTIVATED,
}
# action: (event, states from which it may be taken)
ACTIONS = {
    "activate": ("subscription.activated", frozenset({_S.REGISTERED, _S.PAUSED, _S.DEACTIVATED, _S.ACTIVE})),
    "pause": ("subscription.paused", frozenset({_S.ACTIVE, _S.PAUSED})),
    "resume": ("subscription.resumed", frozenset({_S.PAUSED, _S.ACTIVE})),
    "drain": ("subscription.draining", frozenset({_S.ACTIVE, _S.PAUSED, _S.DRAINING})),
    "deactivate": ("subscription.deactivated", frozenset(SubscriptionState)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A subscription as its newest event tells it."""

    subscription_id: int
    path: str
    catalog_id: int
    state: SubscriptionState
    last_event_type: str
    updated_at: datetime


def _subscription(row: Row) -> Subscription:
    return Subscription(
        subscription_id=row["execution_id"],
        path=row["node_name"],
        catalog_id=row["catalog_id"],
        state=STATE_OF_EVENT.get(row["event_type"], SubscriptionState.REGISTERED),
        last_event_type=row["event_type"],
        updated_at=row["event_time"],
    )


async def register(database: Database, *, path: str, catalog_id: int, next_id: Callable[[], int]) -> Subscription:
    """Return the subscription of `path`: the one that is not deactivated, else a new one."""
    async with database.transaction() as connection:
        await connection.execute(_SQL["lock_path"], path)
        known = await connection.fetchval(_SQL["newest_of_path"], path)
        if known is not None:
            row = await fetch_one(connection, _SQL["newest_event"], known)
            if row is not None and row["event_type"] != "subscription.deactivated":
                return _subscription(row)
        subscription_id = next_id()
        return await _append(connection, subscription_id, catalog_id, next_id(), "subscription.registered", path)


async def act(database: Database, subscription_id: int, action: str, *, next_id: Callable[[], int]) -> Subscription:
    """Take `action` and return the subscription after it.

    Raises:
        HttpError: 404 without the subscription, 422 for an unknown action or one that its state does not allow.
    """
    if action not in ACTIONS:
        raise HttpError(422, f"Unknown action '{action[:64]}'. Use: {', '.join(ACTIONS)}")
    event_type, allowed = ACTIONS[action]
    async with database.transaction() as connection:
        await connection.execute(_SQL["lock_one"], subscription_id)
        row = await fetch_one(connection, _SQL["newest_event"], subscription_id)
        if row is None:
            raise not_found(f"Subscription {subscription_id} not registered")
        now = _subscription(row)
        if now.state not in allowed:
            raise HttpError(422, f"Cannot {action} a subscription that is {now.state}")
        return await _append(connection, subscription_id, now.catalog_id, next_id(), event_type, now.path)


async def _append(
    connection: Connection, subscription_id: int, catalog_id: int, event_id: int, event_type: str, path: str
) -> Subscription:
    state = STATE_OF_EVENT[event_type]
    row = await fetch_one(connection, _SQL["append"], subscription_id, catalog_id, event_id, event_type, path, state)
    assert row is not None
    return _subscription(row)


async def find(database: Database, subscription_id: int) -> Subscription:
    """Return a subscription.

    Raises:
        HttpError: 404.
    """
    row = await database.fetchrow(_SQL["newest_event"], subscription_id)
    if row is None:
        raise not_found(f"Subscription {subscription_id} not registered")
    return _subscription(row)


async def list_subscriptions(database: Database, *, limit: int) -> list[Subscription]:
    """Return up to `limit` subscriptions, newest first."""
    return [_subscription(row) for row in await database.fetch(_SQL["list"], limit)]


async def documents(database: Database, *, limit: int) -> list[Row]:
    """Return the newest version of up to `limit` subscription documents: `catalog_id`, `path`, `version`, `payload`."""
    return await database.fetch(_SQL["documents"], limit)
