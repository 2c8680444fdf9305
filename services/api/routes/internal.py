"""/api/internal/*: what the outbox publisher, the orchestrator and the projector call, behind the bearer gate."""

from __future__ import annotations

import logging
import random
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import orjson
import xxhash
from aiohttp import web

from services.api import references, views
from services.api.auth.roles import Access
from services.api.children import Lineage, Starter, lineages_of
from services.api.http import Call, HttpError, RouteTable, not_found, reply, unprocessable
from services.api.metrics import DECISIONS, EXECUTIONS_ENDED, OUTBOX_CLAIMED
from services.api.models import (
    CommitBody,
    DeadLetterBody,
    DeadLetterQuery,
    DecisionItem,
    LoadBody,
    MarkFailedBody,
    MarkPublishedBody,
    OutboxClaimBody,
    ProjectBody,
    ReconcileBody,
    ReferencesBody,
    SnapshotBody,
)
from services.api.reconcile import reconcile
from services.api.store.commit import CommitDecision, CommitResult, Effect
from services.api.store.projections import project
from services.api.store.queries import queries
from shared.engine import IssueCommand, effect_from_json
from shared.engine.limits import SNAPSHOT_BYTES_MAX, SNAPSHOT_EVENTS_MIN

if TYPE_CHECKING:
    pass

routes = RouteTable("internal")
log = logging.getLogger(__name__)

_OUTBOX = queries("outbox")
_EXECUTION = queries("execution")
_SNAPSHOT = queries("snapshot")
LOAD_EVENTS_MAX = 5000  # events of one `load` answer, shared by its executions
REFERENCES_BYTES_MAX = references.LOOP_RESULT_BYTES_MAX  # of one answer
COMMIT_BODY_BYTES_MAX = 72 << 20  # a loop's collection and its commands, see COMMIT_BYTES_MAX of the orchestrator
SNAPSHOT_BODY_BYTES_MAX = SNAPSHOT_BYTES_MAX + (8 << 20)  # the engine's estimate of a state's size is a little low
JITTER_SHARE = 0.2  # of the publish back-off, so that failed rows do not return together


@routes.add("POST", "/api/internal/outbox/claim", "Lease outbox rows", role=Access.INTERNAL, body=OutboxClaimBody)
async def outbox_claim(call: Call) -> web.StreamResponse:
    """Answer rows in the order in which they must be published."""
    lease = call.context.settings.noetl_outbox_lease_seconds
    async with call.context.database.transaction() as connection:
        await connection.execute(_OUTBOX["relaxed_commit"])
        if call.body.published_ids:
            await connection.execute(_OUTBOX["mark_published"], call.body.published_ids)
        rows = await connection.fetch(_OUTBOX["claim"], call.body.limit, lease)
    OUTBOX_CLAIMED.inc(len(rows))
    documents = [{**dict(row), "payload": orjson.Fragment(row["payload"])} for row in rows]
    return reply({"rows": documents, "claimed": len(documents)})


@routes.add(
    "POST",
    "/api/internal/outbox/mark-published",
    "Mark rows as published",
    role=Access.INTERNAL,
    body=MarkPublishedBody,
)
async def outbox_mark_published(call: Call) -> web.StreamResponse:
    """Count the rows that changed."""
    async with call.context.database.transaction() as connection:
        await connection.execute(_OUTBOX["relaxed_commit"])
        tag = await connection.execute(_OUTBOX["mark_published"], call.body.outbox_ids)
    return reply({"marked": int(tag.rpartition(" ")[2])})


@routes.add(
    "POST",
    "/api/internal/outbox/mark-failed",
    "Give a row back after a failed publish",
    role=Access.INTERNAL,
    body=MarkFailedBody,
)
async def outbox_mark_failed(call: Call) -> web.StreamResponse:
    """Back off, or move the row to the dead letters when its attempts are used up."""
    body: MarkFailedBody = call.body
    if body.attempts >= call.context.settings.noetl_outbox_attempts_max:
        async with call.context.database.connection() as connection:
            tag = await connection.execute(_OUTBOX["dead_letter"], body.outbox_id, body.error or "publish failed")
        return reply({"marked": tag.endswith(" 1"), "available_at_in": 0, "dead_lettered": tag.endswith(" 1")})
    base = min(body.max_delay_seconds, 2 ** min(8, body.attempts - 1))
    delay = base * (1 + random.uniform(-JITTER_SHARE, JITTER_SHARE))  # noqa: S311 - spreads load, guards nothing
    async with call.context.database.connection() as connection:
        tag = await connection.execute(_OUTBOX["mark_failed"], body.outbox_id, delay, body.error)
    return reply({"marked": tag.endswith(" 1"), "available_at_in": base, "dead_lettered": False})


@routes.add("GET", "/api/internal/outbox/pending-count", "Rows that wait to be published", role=Access.INTERNAL)
async def outbox_pending(call: Call) -> web.StreamResponse:
    """What KEDA reads (`valueLocation: pending`)."""
    return reply({"pending": await call.context.database.fetchval(_OUTBOX["pending_count"])})


@routes.add(
    "POST", "/api/internal/events/project", "Apply events to the read models", role=Access.INTERNAL, body=ProjectBody
)
async def events_project(call: Call) -> web.StreamResponse:
    """Store events that are not in the log yet and the read models; repeating a batch is safe."""
    body: ProjectBody = call.body
    return reply(await project(call.context.database, body.events, body.projections))


@routes.add("POST", "/api/internal/executions/load", "Events after a version", role=Access.INTERNAL, body=LoadBody)
async def load(call: Call) -> web.StreamResponse:
    """Answer the tail of each execution; `complete` is false when the limit cut it."""
    body: LoadBody = call.body
    after = {item.execution_id: item.after_version for item in body.executions}
    whole = {item.execution_id for item in body.executions if item.snapshot and item.after_version == 0}
    rows = await call.context.database.fetch(_EXECUTION["watermarks"], list(after))
    left = LOAD_EVENTS_MAX
    documents: list[dict[str, Any]] = []
    async with call.context.database.connection() as connection:
        for row in rows:
            version = after[row["execution_id"]]
            kept = None
            if row["execution_id"] in whole and row["stream_version"] >= SNAPSHOT_EVENTS_MIN:
                stored = await connection.fetchrow(_SNAPSHOT["newest"], f"execution/{row['execution_id']}")
                if stored is not None:
                    version, kept = stored["version"], orjson.Fragment(stored["snapshot"])
            events = await connection.fetch(_EXECUTION["stream"], row["execution_id"], version, left) if left else []
            left -= len(events)
            newest = events[-1]["stream_version"] if events else version
            documents.append(
                {
                    **dict(row),
                    "snapshot": kept,
                    "events": [views.envelope(dict(event)) for event in events],
                    "complete": newest >= row["stream_version"],
                }
            )
    found = {row["execution_id"] for row in rows}
    return reply({"executions": documents, "missing": [item for item in after if item not in found]})


@routes.add(
    "POST",
    "/api/internal/executions/snapshot",
    "Keep a folded state",
    role=Access.INTERNAL,
    body=SnapshotBody,
    errors=(413,),
    body_bytes_max=SNAPSHOT_BODY_BYTES_MAX,
)
async def snapshot(call: Call) -> web.StreamResponse:
    """Keep it unless there is a newer one or the execution has ended; loading then starts from it."""
    body: SnapshotBody = call.body
    text = orjson.dumps(body.snapshot)
    checksum = xxhash.xxh3_64_hexdigest(text)
    async with call.context.database.connection() as connection:
        tag = await connection.execute(
            _SNAPSHOT["put"],
            f"execution/{body.execution_id}",
            body.version,
            text.decode(),
            checksum,
            body.execution_id,
        )
    return reply({"stored": tag.endswith(" 1")})


@routes.add(
    "POST",
    "/api/internal/references/resolve",
    "Data behind references",
    body=ReferencesBody,
    errors=(413,),
    role=Access.INTERNAL,
)
async def resolve_references(call: Call) -> web.StreamResponse:
    """Answer the data by locator; those that exist no more are listed."""
    found: dict[str, Any] = {}
    missing: list[str] = []
    size = 0
    for locator in call.body.locators:
        try:
            text = await references.resolve(call.context, locator)
        except references.TooLargeError as error:
            raise HttpError(413, str(error)) from error
        if text is None:
            missing.append(locator)
            continue
        size += len(text)
        if size > REFERENCES_BYTES_MAX:
            raise HttpError(413, f"the data has more than {REFERENCES_BYTES_MAX} bytes; ask for less at once")
        found[locator] = orjson.Fragment(text)
    return reply({"data": found, "missing": missing})


@routes.add(
    "GET", "/api/internal/playbooks/{catalog_id}", "A catalog entry's text", errors=(404,), role=Access.INTERNAL
)
async def playbook(call: Call) -> web.StreamResponse:
    """Answer the document that an execution was started from."""
    catalog_id = call.path_id("catalog_id")
    row = await call.context.database.fetchrow(_EXECUTION["playbook"], catalog_id)
    if row is None:
        raise not_found(f"catalog entry {catalog_id} not found")
    return reply(dict(row))


@routes.add(
    "POST",
    "/api/internal/executions/commit",
    "Commit decisions by compare-and-set",
    body=CommitBody,
    errors=(413,),
    role=Access.INTERNAL,
    body_bytes_max=COMMIT_BODY_BYTES_MAX,
)
async def commit(call: Call) -> web.StreamResponse:
    """Commit each decision on its own; the answer keeps their order."""
    body: CommitBody = call.body
    effects = [_effects(item, index) for index, item in enumerate(body.decisions)]
    calling = [item.execution_id for item, wanted in zip(body.decisions, effects, strict=True) if _has_child(wanted)]
    lineages = await lineages_of(call.context, calling)
    starter = Starter(call.context)
    operations = [
        await _operation(starter, item, wanted, parents=lineages.get(item.execution_id))
        for item, wanted in zip(body.decisions, effects, strict=True)
    ]
    results: list[CommitResult] = await call.context.writer.submit_all(operations, failed=_failed)
    for result in results:
        DECISIONS.labels(outcome=result.outcome).inc()
    _count_ends(body.decisions, results)
    return reply({"results": [asdict(result) for result in results]})


def _effects(item: DecisionItem, index: int) -> tuple[Effect, ...]:
    effects = []
    for position, effect in enumerate(item.effects):
        try:
            effects.append(effect_from_json(effect))
        except ValueError as error:
            raise unprocessable(["body", "decisions", index, "effects", position], str(error)) from error
    return tuple(effects)


def _has_child(effects: tuple[Effect, ...]) -> bool:
    return any(isinstance(effect, IssueCommand) and effect.child is not None for effect in effects)


async def _operation(
    starter: Starter, item: DecisionItem, effects: tuple[Effect, ...], *, parents: Lineage | None
) -> CommitDecision:
    return CommitDecision(
        item.execution_id,
        expected_decided_version=item.expected_decided_version,
        decided_version=item.decided_version,
        effects=effects,
        state=item.state,
        children=await starter.prepare(effects, parents=parents),
    )


def _failed(operation: CommitDecision, error: HttpError) -> CommitResult:
    """Turn a refusal of one decision into its result, so that its neighbours' fate is still told.

    Raises:
        HttpError: 503, when nothing is wrong with the decision and the whole call should be sent again.
    """
    if error.status == 503:
        raise error
    return CommitResult(execution_id=operation.execution_id, outcome="rejected", error=str(error.detail))


def _count_ends(decisions: list[DecisionItem], results: list[CommitResult]) -> None:
    for item, result in zip(decisions, results, strict=True):
        if result.outcome == "committed":
            for effect in item.effects:
                name = effect.get("event_type")
                if name in ("playbook.completed", "playbook.failed"):
                    status = str(name).rpartition(".")[2].upper()
                    EXECUTIONS_ENDED.labels(status=status).inc()
                    log.info("execution ended", extra={"execution_id": item.execution_id, "status": status})


@routes.add("POST", "/api/internal/reconcile", "Heal what a crash left", role=Access.INTERNAL, body=ReconcileBody)
async def reconcile_route(call: Call) -> web.StreamResponse:
    """Run one bounded pass; safe to call from every replica at any time."""
    return reply(await reconcile(call.context, limit=call.body.limit))


@routes.add(
    "GET",
    "/api/internal/dead-letters",
    "Messages that were given up",
    role=Access.INTERNAL_ADMIN,
    query=DeadLetterQuery,
)
async def dead_letters(call: Call) -> web.StreamResponse:
    """Answer the newest first."""
    rows = await call.context.database.fetch(_OUTBOX["list_dead_letters"], call.query.limit)
    return reply({"rows": [dict(row) for row in rows]})


@routes.add("POST", "/api/internal/dead-letters", "Give up a message", role=Access.INTERNAL, body=DeadLetterBody)
async def dead_letter(call: Call) -> web.StreamResponse:
    """Store what a consumer could not handle, with the reason."""
    body: DeadLetterBody = call.body
    number = await call.context.database.fetchval(
        _OUTBOX["insert_dead_letter"],
        body.source,
        body.execution_id,
        body.subject,
        body.msg_id,
        body.payload,
        body.reason,
        body.deliveries,
    )
    return reply({"dead_letter_id": number})
