"""Start an execution: its first events and its first decision, committed as one unit.

The first decision is made here and not by the orchestrator: the answer then tells how many commands were issued, and the
first step is on its way one hop earlier. It is the same pure `decide`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from services.api.children import (
    Lineage,
    RecursionRefusedError,
    Starter,
    first_events,
    lineages_of,
)
from services.api.http import HttpError
from services.api.metrics import DUPLICATE_STARTS, EXECUTIONS_STARTED
from services.api.store.dedup import DedupKey
from services.api.store.lifecycle import StartExecution, StartResult
from services.api.store.rows import NewEvent
from shared.engine import (
    AppendEvent,
    Decision,
    Event,
    IssueCommand,
    Options,
    TemplateError,
    decide,
    evolve,
    initial_state,
    status_document,
)

if TYPE_CHECKING:
    from services.api.context import ApiContext
    from services.api.playbooks import Entry

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOptions:
    """What a start may carry beside its workload: `pool` overrides the pool of its commands, `dedup` makes it happen once,
    `meta` is kept on the first event (trace, what it is a rerun of)."""

    parent_execution_id: int | None = None
    pool: str | None = None
    dedup: DedupKey | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


async def start_execution(
    context: ApiContext, entry: Entry, *, payload: Mapping[str, Any], options: StartOptions = StartOptions()
) -> StartResult:
    """Start `entry` with `payload` merged over its workload, unless an earlier start has its key.

    Raises:
        HttpError: 422 when the first step's input cannot be rendered; 503 when nothing could be stored.
    """
    execution_id = context.ids.next()
    now = datetime.now(UTC)
    starter = Starter(context)
    parents = await _parents(context, options.parent_execution_id)
    try:
        root_id = await starter.recursion_root(parents, entry.path)
    except RecursionRefusedError as error:
        raise HttpError(422, f"parent_execution_id: {error}") from error
    events = first_events(context, entry, payload=payload)
    meta = {**options.meta, **({"execution_pool": options.pool} if options.pool else {})}
    events[0].meta = {**(events[0].meta or {}), **meta} or None
    state = initial_state(execution_id, entry.catalog_id, entry.path)
    for version, new in enumerate(events, start=1):
        state = evolve(state, _as_event(new, version=version, now=now))
    try:
        engine = Options(loop_in_flight=context.settings.noetl_loop_in_flight_default)
        decision = decide(state, entry.playbook, now=now, options=engine)
    except TemplateError as error:
        raise HttpError(422, f"Invalid command context for the first step: {error}") from error
    problem = _stillborn(decision)
    if problem is not None:
        raise HttpError(422, f"Invalid command context for step '{entry.playbook.entry}': {problem}")
    own = Lineage(paths=(entry.path,), root_id=execution_id)
    lineage = own if parents is None else Lineage(paths=(entry.path, *parents.paths), root_id=parents.root_id)
    operation = StartExecution(
        execution_id,
        catalog_id=entry.catalog_id,
        parent_execution_id=options.parent_execution_id,
        events=events,
        effects=decision.effects,
        state=status_document(decision.state or state),
        root_id=root_id,
        children=await starter.prepare(decision.effects, parents=lineage),
        execution_pool=options.pool,
        dedup=options.dedup,
    )
    result = await context.writer.submit(operation)
    if result.duplicate:
        DUPLICATE_STARTS.inc()
        log.info("duplicate start", extra={"execution_id": result.execution_id, "path": entry.path})
        return result
    EXECUTIONS_STARTED.inc()
    log.info("execution started", extra={"execution_id": execution_id, "path": entry.path, "version": entry.version})
    return result


def _stillborn(decision: Decision) -> str | None:
    """Return why an execution would fail without having done anything, None when it would not."""
    for effect in decision.effects:
        if isinstance(effect, IssueCommand):
            return None
        if isinstance(effect, AppendEvent) and effect.event_type == "playbook.failed":
            return effect.error or "it fails at once"
    return None


async def _parents(context: ApiContext, parent_execution_id: int | None) -> Lineage | None:
    if parent_execution_id is None:
        return None
    return (await lineages_of(context, [parent_execution_id])).get(parent_execution_id)


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
