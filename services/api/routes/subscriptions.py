"""/api/subscriptions: who listens to what, driven by the Rust worker's subscription runtime."""

from __future__ import annotations

from aiohttp import web

from services.api.auth.roles import Access
from services.api.http import Call, HttpError, RouteTable, not_found, reply
from services.api.inputs import Answer, Key, path_text
from services.api.models import Lax
from services.api.store import catalog
from services.api.store import subscriptions as store
from services.api.views import time_offset

KIND = "subscription"
LIST_MAX = 1000  # subscriptions in one answer

routes = RouteTable("subscriptions")


class RegisterSubscription(Lax):
    """Body of `POST /api/subscriptions`."""

    path: Key


class Subscription(Answer):
    """State of a subscription."""

    subscription_id: str
    path: str
    catalog_id: str
    state: store.SubscriptionState
    last_event_type: str
    updated_at: str


class SubscriptionList(Answer):
    """Answer of `GET /api/subscriptions`."""

    subscriptions: list[Subscription]


def document(found: store.Subscription) -> dict[str, str | None]:
    """Return the answer that shows `found`."""
    return {
        "subscription_id": str(found.subscription_id),
        "path": found.path,
        "catalog_id": str(found.catalog_id),
        "state": found.state,
        "last_event_type": found.last_event_type,
        "updated_at": time_offset(found.updated_at),
    }


@routes.add(
    "POST",
    "/api/subscriptions/register",
    "Register a subscription",
    role=Access.RUNNER,
    body=RegisterSubscription,
    response=Subscription,
    errors=(404,),
    rust_errors=True,
)
@routes.add(
    "POST",
    "/api/subscriptions",
    "Register a subscription",
    role=Access.RUNNER,
    body=RegisterSubscription,
    response=Subscription,
    errors=(404,),
    rust_errors=True,
)
async def register(call: Call) -> web.StreamResponse:
    """Answer the subscription of the path: the one there is, or a new one when there is none or it is deactivated."""
    path = call.body.path
    entry = await catalog.entry_by_path(call.context.database, path, None)
    if entry is None:
        raise not_found(f"Subscription not found: {path}")
    if entry["kind"] != KIND:
        raise HttpError(422, f"Catalog entry '{path}' is of kind '{entry['kind']}', not '{KIND}'")
    found = await store.register(
        call.context.database, path=path, catalog_id=entry["catalog_id"], next_id=call.context.ids.next
    )
    return reply(document(found))


@routes.add(
    "GET", "/api/subscriptions", "List subscriptions", role=Access.VIEWER, response=SubscriptionList, rust_errors=True
)
async def list_subscriptions(call: Call) -> web.StreamResponse:
    """Answer every subscription, newest first, `LIST_MAX` at most."""
    found = await store.list_subscriptions(call.context.database, limit=LIST_MAX)
    return reply({"subscriptions": [document(item) for item in found]})


@routes.add(
    "GET",
    "/api/subscriptions/{subscription_id}",
    "Show a subscription",
    role=Access.VIEWER,
    response=Subscription,
    errors=(404,),
    rust_errors=True,
)
async def show(call: Call) -> web.StreamResponse:
    """Answer the state."""
    return reply(document(await store.find(call.context.database, call.path_id("subscription_id"))))


@routes.add(
    "POST",
    "/api/subscriptions/{subscription_id}/{action}",
    "Change the state of a subscription",
    role=Access.RUNNER,
    response=Subscription,
    errors=(404,),
    rust_errors=True,
)
async def act(call: Call) -> web.StreamResponse:
    """Take an action: activate, pause, resume, drain or deactivate."""
    found = await store.act(
        call.context.database,
        call.path_id("subscription_id"),
        path_text(call, "action"),
        next_id=call.context.ids.next,
    )
    return reply(document(found))
