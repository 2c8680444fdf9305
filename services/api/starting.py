"""Start an execution: its first events and its first decision, committed as one unit.

The first decision is made here and not by the orchestrator: the answer then tells how many commands were issued, and the
first step is on its way one hop earlier. It is the same pure `decide`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from services.api.http import HttpError
from services.api.metrics import EXECUTIONS_STARTED
from services.api.store.commit import new_event
from services.api.store.lifecycle import StartExecution
from services.api.store.rows import NewEvent
from shared.engine import (
    AppendEvent,
    Event,
    TemplateError,
    decide,
    evolve,
    initial_events,
    initial_state,
    status_document,
)

if TYPE_CHECKING:
    from services.api.context import ApiContext
    from services.api.playbooks import Entry

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A running execution."""

    execution_id: int
    commands_generated: int


async def start_execution(
    context: ApiContext, entry: Entry, *, payload: Mapping[str, Any], parent_execution_id: int | None
) -> Started:
    """Start `entry` with `payload` merged over its workload.

    Raises:
        HttpError: 422 when the first step's input cannot be rendered; 503 when nothing could be stored.
    """
    execution_id = context.ids.next()
    now = datetime.now(UTC)
    events = _first_events(context, initial_events(entry.playbook, payload=payload, path=entry.path))
    state = initial_state(execution_id, entry.catalog_id, entry.path)
    for version, new in enumerate(events, start=1):
        state = evolve(state, _as_event(new, version=version, now=now))
    try:
        decision = decide(state, entry.playbook, now=now)
    except TemplateError as error:
        raise HttpError(422, f"Invalid command context for the first step: {error}") from error
    operation = StartExecution(
        execution_id,
        catalog_id=entry.catalog_id,
        parent_execution_id=parent_execution_id,
        events=events,
        effects=decision.effects,
        state=status_document(decision.state or state),
    )
    commands = await context.writer.submit(operation)
    EXECUTIONS_STARTED.inc()
    log.info("execution started", extra={"execution_id": execution_id, "path": entry.path, "version": entry.version})
    return Started(execution_id=execution_id, commands_generated=commands)


def _first_events(context: ApiContext, effects: tuple[AppendEvent, ...]) -> list[NewEvent]:
    """Give the initial events their ids, the first being the parent of the rest."""
    events: list[NewEvent] = []
    for effect in effects:
        parent = events[0].event_id if events else None
        events.append(replace(new_event(effect), parent_event_id=parent, event_id=context.ids.next()))
    return events


def _as_event(new: NewEvent, *, version: int, now: datetime) -> Event:
    return Event(
        version=version,
        event_id=new.event_id or 0,
        type=new.event_type,
        step=new.node_name,
        status=new.status,
        context=new.context,
        result=new.result,
        meta=new.meta or {},
        error=new.error,
        command_id=new.command_id,
        worker_id=new.worker_id,
        occurred_at=now,
    )
