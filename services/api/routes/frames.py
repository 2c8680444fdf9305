"""/api/stages and /api/frames: workers of cursor loops lease units of work, tell that they live, and report the end."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from aiohttp import web
from pydantic import Field, field_validator

from services.api.auth.roles import Access
from services.api.http import Call, RouteTable, reply
from services.api.inputs import Answer, Text
from services.api.models import NAME_MAX, Id, Lax, Name, storable
from services.api.store import frames as store
from services.api.views import time_z

COUNT_MAX = 100  # frames of one claim, as in the original
LEASE_SECONDS_MAX = 3600  # as in the original
ROWS_MAX = 2**31 - 1  # an INTEGER
_DURABLE = ("ref", "uri", "locator", "logical_uri", "durable_ref")  # where else the data of a shared-memory hint lies

routes = RouteTable("frames")


class ClaimFrames(Lax):
    """Body of `POST /api/stages/{stage_id}/frames/claim`."""

    worker_id: Name
    command_id: Id | None = None
    requested_count: int = Field(1, ge=1, le=COUNT_MAX, description="a cursor that names slot and turn gets one")
    lease_seconds: int = Field(60, ge=5, le=LEASE_SECONDS_MAX)
    cursor: dict[str, Any] = Field(default_factory=dict)
    frame_policy: dict[str, Any] = Field(default_factory=dict)
    locality: dict[str, Any] = Field(default_factory=dict)

    @field_validator("cursor")
    @classmethod
    def _key(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in ("worker_slot_id", "frame_index"):
            part = value.get(name)
            if part is None:
                continue
            if isinstance(part, bool) or not isinstance(part, str | int) or len(str(part)) > NAME_MAX:
                raise ValueError(f"{name} must be an integer or a text of at most {NAME_MAX} characters")
            storable(str(part))
        return value


class FrameHeartbeat(Lax):
    """Body of `POST /api/frames/{frame_id}/heartbeat`."""

    worker_id: Name
    lease_seconds: int = Field(60, ge=5, le=LEASE_SECONDS_MAX)
    status: Literal["CLAIMED", "RUNNING"] = "RUNNING"
    claimed_event_id: Id | None = Field(None, description="the token of the claim: refuses a worker that was replaced")


class CommitFrame(Lax):
    """Body of `POST /api/frames/{frame_id}/commit`."""

    worker_id: Name
    status: Literal["COMPLETED", "FAILED"] = "COMPLETED"
    cursor: dict[str, Any] = Field(default_factory=dict)
    row_count: int = Field(0, ge=0, le=ROWS_MAX)
    output_ref: dict[str, Any] | None = None
    events_emitted: int = Field(0, ge=0, le=ROWS_MAX)
    error: Text | None = None
    claimed_event_id: Id | None = Field(None, description="the token of the claim: refuses a worker that was replaced")

    @field_validator("output_ref")
    @classmethod
    def _durable(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value and "ipc" in value and not any(value.get(key) for key in _DURABLE):
            raise ValueError(
                "an ipc hint needs a durable reference beside it (ref or uri): shared memory is lost with its host"
            )
        return value


class Frame(Answer):
    """A leased unit of work."""

    frame_id: int
    stage_id: int
    execution_id: int
    status: str
    cursor: dict[str, Any]
    lease_until: datetime | None
    owner_worker: str | None
    parent_frame_id: int | None
    command_id: int | None
    claimed_event_id: int | None
    terminal_event_id: int | None
    row_count: int
    output_ref: dict[str, Any] | None
    events_emitted: int
    event_id: int | None


class Frames(Answer):
    """Answer of a claim."""

    status: str
    frames: list[Frame]


class OneFrame(Answer):
    """Answer of heartbeat and commit."""

    status: str
    frame: Frame


def _document(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**{name: row[name] for name in Frame.model_fields}, "lease_until": time_z(row["lease_until"])}


@routes.add(
    "POST",
    "/api/stages/{stage_id}/frames/claim",
    "Lease frames of a cursor loop",
    role=Access.WORKER,
    body=ClaimFrames,
    response=Frames,
    errors=(404, 409),
)
async def claim_frames(call: Call) -> web.StreamResponse:
    """Lease frames by the database's clock; a frame whose lease is over goes to the next who asks."""
    body: ClaimFrames = call.body
    locality = body.locality
    meta: dict[str, Any] = {"frame_policy": body.frame_policy, "locality": locality}
    if locality.get("worker_pool"):
        meta["worker_locator"] = f"noetl://tenant/default/org/default/worker/{locality['worker_pool']}"
    wanted = store.FrameClaim(
        stage_id=call.path_id("stage_id"),
        worker_id=body.worker_id,
        command_id=body.command_id,
        count=body.requested_count,
        lease_seconds=float(body.lease_seconds),
        cursor=body.cursor,
        meta=meta,
    )
    rows = await store.claim(call.context.database, wanted, next_id=call.context.ids.next)
    return reply({"status": "ok", "frames": [_document(row) for row in rows]})


@routes.add(
    "POST",
    "/api/frames/{frame_id}/heartbeat",
    "Extend the lease of a frame",
    role=Access.WORKER,
    body=FrameHeartbeat,
    response=OneFrame,
    errors=(404, 409),
)
async def heartbeat_frame(call: Call) -> web.StreamResponse:
    """Extend the lease; the first heartbeat says that the work has begun."""
    body: FrameHeartbeat = call.body
    fence = store.Fence(
        frame_id=call.path_id("frame_id"), worker_id=body.worker_id, claimed_event_id=body.claimed_event_id
    )
    row = await store.heartbeat(
        call.context.database,
        fence,
        status=body.status,
        lease_seconds=float(body.lease_seconds),
        next_id=call.context.ids.next,
    )
    return reply({"status": "ok", "frame": _document(row)})


@routes.add(
    "POST",
    "/api/frames/{frame_id}/commit",
    "End a frame",
    role=Access.WORKER,
    body=CommitFrame,
    response=OneFrame,
    errors=(404, 409),
)
async def commit_frame(call: Call) -> web.StreamResponse:
    """Store how the frame ended; who lost its lease to another worker is refused."""
    body: CommitFrame = call.body
    fence = store.Fence(
        frame_id=call.path_id("frame_id"), worker_id=body.worker_id, claimed_event_id=body.claimed_event_id
    )
    result = store.FrameResult(
        status=body.status,
        cursor=body.cursor,
        row_count=body.row_count,
        output_ref=body.output_ref,
        events_emitted=body.events_emitted,
        error=body.error,
    )
    row = await store.finish(call.context.database, fence, result, next_id=call.context.ids.next)
    return reply({"status": "ok", "frame": _document(row)})
