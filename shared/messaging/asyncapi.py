"""The AsyncAPI document: subjects and messages on NATS, declared with FastStream and never run by it."""

from __future__ import annotations

import re
from datetime import datetime
from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel, Field

from shared.wire.subjects import COMMANDS_SUBJECT, EVENTS_PREFIX, OUTBOX_KICK_SUBJECT, STREAM_WAKE_SUBJECT

# Types of events that services of ours append; workers and other writers may add any.
EVENT_TYPES: dict[str, str] = {
    "playbook.initialized": "an execution has begun; `context.result.workload` is its workload",
    "workflow.initialized": "its first step is known",
    "command.issued": "a command waits for a worker; its context travels elided",
    "command.claimed": "a worker has taken it, until its lease ends",
    "command.started": "the worker runs the tool",
    "command.heartbeat": "it still does",
    "command.completed": "the worker is done with it",
    "command.failed": "it could not be done",
    "command.cancelled": "nobody needs it any more",
    "step.enter": "a worker has entered the step",
    "step.exit": "the step is over",
    "step.routed": "its arcs have been walked without a command to carry that",
    "step.skipped": "it waited for sources that will not come",
    "call.done": "the output of a tool, in `context.response` or by reference",
    "call.error": "a tool failed",
    "loop.started": "a loop knows its items",
    "loop.done": "every item has ended",
    "timer.fired": "a durable timer came due: a retry, or the time limit of a step or an execution",
    "child.terminated": "a sub-playbook has ended; its parent goes on",
    "playbook.completed": "the execution has ended well",
    "playbook.failed": "the execution has failed",
    "workflow.completed": "the same, of the workflow",
    "workflow.failed": "the same, of the workflow",
    "execution.cancelled": "somebody has ended it",
}


class EventEnvelope(BaseModel):
    """An event of an execution, as stored. `stream_version` counts from 1 without gaps per execution."""

    event_id: int
    execution_id: int
    catalog_id: int
    event_type: str = Field(
        description="; ".join(f"{name}: {meaning}" for name, meaning in EVENT_TYPES.items()), examples=list(EVENT_TYPES)
    )
    node_id: str | None = None
    node_name: str | None = None
    node_type: str | None = None
    status: str | None = None
    context: dict[str, Any] | None = Field(None, description="`response` has a tool's output; null when elided")
    result: dict[str, Any] | None = None
    meta: dict[str, Any] | None = None
    error: str | None = None
    command_id: int | None = None
    worker_id: str | None = None
    parent_event_id: int | None = None
    parent_execution_id: int | None = None
    stream_id: str
    stream_version: int = Field(ge=1)
    event_time: datetime
    ingest_time: datetime
    created_at: datetime
    elided: bool = Field(False, description="the context was too large to travel; load it from the API")


class CommandNotice(BaseModel):
    """A wake-up for one command; claim it with `POST {server_url}/api/commands/{event_id}/claim`."""

    execution_id: int
    event_id: int
    command_id: int
    step: str
    server_url: str


class Nothing(BaseModel):
    """An empty body: the message only wakes its reader and may be lost."""


def _declare() -> Any:
    from faststream.nats import NatsBroker  # takes half a second, and only this document needs it

    broker = NatsBroker("nats://127.0.0.1:4222", description="JetStream and core NATS")
    events = f"{EVENTS_PREFIX}.{{tenant}}.{{organization}}.{{execution_id}}.{{partition}}"
    broker.publisher(
        events,
        schema=EventEnvelope,
        title="events",
        description="Stream NOETL_EVENTS. Published by playhead-outbox, after the commit, at least once; header "
        "Nats-Msg-Id is the event id. Durables: noetl_orchestrator, noetl_projector.",
    )
    broker.publisher(
        COMMANDS_SUBJECT,
        schema=CommandNotice,
        title="commands",
        description="Stream NOETL_COMMANDS. Durable: noetl_worker_pool.",
    )
    broker.publisher(
        f"{COMMANDS_SUBJECT}.{{pool}}.{{execution_id}}",
        schema=CommandNotice,
        title="commands-of-a-pool",
        description="Stream NOETL_COMMANDS, instead of `commands` with NOETL_COMMAND_ROUTING_ENABLED. "
        "Durables: noetl_worker_pool_<pool>.",
    )
    broker.publisher(
        OUTBOX_KICK_SUBJECT, schema=Nothing, title="outbox-kick", description="Core NATS: outbox rows wait."
    )
    broker.publisher(
        f"{STREAM_WAKE_SUBJECT}.{{execution_id}}",
        schema=Nothing,
        title="stream-wake",
        description="Core NATS: the log of an execution has grown; wakes readers of its event stream.",
    )
    return broker


PARAMETERS = {
    "tenant": "one token; `default`",
    "organization": "one token; `default`",
    "execution_id": "digits",
    "partition": "XxHash64 of the execution id modulo NOETL_EVENT_PARTITIONS",
    "pool": "system, python, shared, or the pool that the start named",
}
_PARAMETER = re.compile(r"\{(\w+)\}")


@cache
def asyncapi_document() -> dict[str, Any]:
    """Return the AsyncAPI 3.0 document."""
    from faststream.specification.asyncapi import AsyncAPI

    made = AsyncAPI(_declare(), title="Playhead", version=version("playhead"), schema_version="3.0.0")
    document: dict[str, Any] = made.to_specification().to_jsonable()
    for channel in document["channels"].values():
        names = _PARAMETER.findall(channel["address"])
        if names:
            channel["parameters"] = {name: {"description": PARAMETERS[name]} for name in names}
    return document
