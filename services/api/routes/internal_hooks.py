"""/api/internal/ingress and /api/internal/container-callback: what the gateway and the cluster watcher call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

from aiohttp import web
from pydantic import Field

from services.api.auth.roles import Access
from services.api.http import Call, HttpError, RouteTable, not_found, reply
from services.api.ingest import normalise
from services.api.inputs import Answer, ShortText, path_text
from services.api.models import Lax
from services.api.secret_access import opened
from services.api.store import credentials, subscriptions
from services.api.store.append import AppendEvents
from services.api.store.queries import queries

DOCUMENTS_MAX = 1000  # subscription documents that a listener is looked up in
SECRET_FIELDS = ("secret", "token", "value", "key", "password")  # of a credential, the first that is there
SECRET_NAMES = ("secret", "credential", "auth", "secret_ref", "keychain")  # where a document names it

routes = RouteTable("internal")

_SQL = queries("execution")


class Ingress(Answer):
    """Answer of `GET /api/internal/ingress/{listener}`: all that a gateway needs to take a request in."""

    listener: str
    catalog_path: str
    source: str
    subscription_id: str
    verify: dict[str, Any]
    dispatch: dict[str, Any]
    directives: dict[str, Any] | None = None


class ContainerCallback(Lax):
    """Body of `POST /api/internal/container-callback/{execution_id}/{step}`."""

    state: Literal["succeeded", "failed", "failed_image_pull", "failed_oom", "failed_node_lost", "failed_timeout"]
    job_name: ShortText
    job_uid: ShortText | None = None
    completed_at: ShortText | None = None
    exit_code: int | None = Field(None, ge=-(2**31), le=2**31 - 1)
    reason: ShortText | None = None
    stdout_uri: ShortText | None = None
    stderr_uri: ShortText | None = None


class CallbackTaken(Answer):
    """Answer of the container callback."""

    status: Literal["accepted_in_flight", "accepted_stale"]
    event_id: str | None = None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


@routes.add(
    "GET",
    "/api/internal/ingress/{listener}",
    "How to take in a listener's requests",
    role=Access.INTERNAL,
    response=Ingress,
    errors=(404,),
    rust_errors=True,
)
async def ingress(call: Call) -> web.StreamResponse:
    """Answer where a listener's messages go and how they are verified, with the secret; registers the subscription."""
    listener = path_text(call, "listener")
    database = call.context.database
    for row in await subscriptions.documents(database, limit=DOCUMENTS_MAX):
        spec = _mapping(_mapping(row["payload"]).get("spec"))
        settings = _mapping(spec.get("ingress"))
        if str(settings.get("gateway_path") or "").rstrip("/").rpartition("/")[2] == listener:
            break
    else:
        raise not_found(f"No subscription listens at '{listener}'")
    dispatch = dict(_mapping(settings.get("dispatch") or spec.get("dispatch")))
    if not dispatch.get("playbook"):
        raise HttpError(422, f"spec.dispatch.playbook is missing in subscription '{row['path']}'")
    dispatch.setdefault("payload_from", "message.json")
    found = await subscriptions.register(
        database, path=row["path"], catalog_id=row["catalog_id"], next_id=call.context.ids.next
    )
    document: dict[str, Any] = {
        "listener": listener,
        "catalog_path": row["path"],
        "source": "webhook",
        "subscription_id": str(found.subscription_id),
        "verify": await _verify(call, _mapping(settings.get("verify")), row["path"]),
        "dispatch": dispatch,
    }
    if settings.get("directives"):
        document["directives"] = settings["directives"]
    return reply(document, headers={"Cache-Control": "no-store"})


async def _verify(call: Call, wanted: Mapping[str, Any], path: str) -> dict[str, Any]:
    shown = {key: value for key, value in wanted.items() if key not in SECRET_NAMES and value is not None}
    name = next((wanted[key] for key in SECRET_NAMES if isinstance(wanted.get(key), str) and wanted[key]), None)
    if name is None:
        return shown
    row = await credentials.find(call.context.database, name)
    if row is None:
        raise HttpError(
            422, f"spec.ingress.verify of subscription '{path}' names credential '{name[:64]}', which is unknown"
        )
    data = await opened(call, row["data_encrypted"], table=credentials.TABLE, row=row["name"], operation="ingress")
    secret = next((data[field] for field in SECRET_FIELDS if isinstance(data, dict) and data.get(field)), None)
    if secret is None:
        raise HttpError(422, f"credential '{name[:64]}' has none of the fields {', '.join(SECRET_FIELDS)}")
    return {**shown, "secret": str(secret)}


@routes.add(
    "POST",
    "/api/internal/container-callback/{execution_id}/{step}",
    "Report the end of a container job",
    role=Access.INTERNAL,
    body=ContainerCallback,
    response=CallbackTaken,
    status=202,
    errors=(404,),
    rust_errors=True,
)
async def container_callback(call: Call) -> web.StreamResponse:
    """Store the end of a job as the step's `call.done`; one of an execution that is unknown here is accepted and dropped."""
    body: ContainerCallback = call.body
    execution_id, step = call.path_id("execution_id"), path_text(call, "step")
    command = await call.context.database.fetchrow(_SQL["newest_command_of_step"], execution_id, step)
    if command is None:
        return reply({"status": "accepted_stale"}, status=202)
    response = body.model_dump(exclude_none=True)
    failed = body.state != "succeeded"
    payload: dict[str, Any] = {
        "command_id": command["command_id"],
        "response": {**response, "status": "error" if failed else "success"},
        "result": {"status": "FAILED" if failed else "COMPLETED", "context": response},
    }
    if failed:
        payload["error"] = body.reason or f"the container job ended as {body.state}"
    settings = call.context.settings
    event = normalise(
        {"name": "call.done", "step": step, "payload": payload},
        worker_id=None,
    )
    event = replace(event, status="FAILED" if failed else "COMPLETED")
    appended = await call.context.writer.submit(
        AppendEvents(
            execution_id,
            [event],
            request_id=call.context.ids.next(),
            idempotency_key=f"container/{body.job_uid or body.job_name}/{body.state}",
            lease=timedelta(seconds=settings.noetl_command_claim_lease_seconds),
        )
    )
    event_id = appended.event_ids[0] if appended.event_ids else None
    return reply({"status": "accepted_in_flight", "event_id": None if event_id is None else str(event_id)}, status=202)
