"""From events to committed decisions: fold, decide, commit a whole batch in one call, and repair what others left.

Everything is idempotent. A decision is committed only if nobody decided before (compare-and-set); who loses loads and looks
again. Messages are acknowledged after the commit, so what a crash leaves comes again.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from services.orchestrator.deciding import Decider
from services.orchestrator.metrics import CACHED, DECISIONS, LOADS, SNAPSHOTS
from services.orchestrator.tracked import Tracked, TrackedExecutions
from shared.engine import Decision, Event, Options, failure, initial_state, status_document
from shared.engine.jsontext import dumps
from shared.engine.snapshot import SnapshotFormatError, SnapshotSizeError, snapshot_from_json, snapshot_to_json
from shared.platform.api_client import ApiClient
from shared.platform.errors import ApiRefusedError, ApiUnavailableError
from shared.platform.tracing import span

log = logging.getLogger(__name__)

CALL_EXECUTIONS_MAX = 200  # of one load or commit (docs/contracts.md section 3)
REFUSED_STATUS = frozenset({413, 422})  # the API does not take what a decision says; all else is the caller's trouble
ROUNDS_MAX = 3  # load and decide again after a lost compare-and-set; then the reconciler takes over
LOAD_PAGES_MAX = 1000  # of 5000 events: an execution of five million events
DECISION_BYTES_MAX = 64 << 20  # of one decision as JSON: a loop starts with its whole collection in one event
CALL_BYTES_MAX = 16 << 20  # decisions that share a call; one larger travels alone


class Orchestrator:
    """Not safe for concurrent calls: one task at a time."""

    def __init__(self, api: ApiClient, *, cache_max: int, options: Options | None = None) -> None:
        self._api = api
        self._tracked = TrackedExecutions(cache_max)
        self._decider = Decider(api, options or Options())

    async def handle(self, events: Mapping[int, list[Mapping[str, Any]]]) -> None:
        """Handle the envelopes of a batch by execution; afterwards every one of them is decided or left to the reconciler.

        Raises:
            ApiUnavailableError: nothing is lost; handle the same batch again.
        """
        gaps = [key for key, envelopes in events.items() if not self._tracked.receive(key, envelopes)]
        if gaps:
            LOADS.labels(reason="gap").inc(len(gaps))
            await self._load(gaps)
        await self._decide(events)
        await self._keep(events)
        CACHED.set(len(self._tracked))

    async def reconcile(self, execution_ids: Collection[int]) -> None:
        """Load executions that nobody has decided, and decide them."""
        LOADS.labels(reason="reconcile").inc(len(execution_ids))
        await self._load(execution_ids)
        await self._decide(execution_ids)

    # --- loading ---------------------------------------------------------------------------------------------------

    async def _load(self, execution_ids: Iterable[int]) -> None:
        """Bring executions up to the log; those that do not exist are forgotten."""
        wanted = list(dict.fromkeys(execution_ids))
        for start in range(0, len(wanted), CALL_EXECUTIONS_MAX):
            left = wanted[start : start + CALL_EXECUTIONS_MAX]
            for _ in range(LOAD_PAGES_MAX):
                if not left:
                    break
                left = await self._load_page(left)

    async def _load_page(self, execution_ids: list[int], *, snapshots: bool = True) -> list[int]:
        """Load one page and return the executions that have more; one whose snapshot cannot be read is folded whole."""
        after: dict[int, int] = {}
        for key in execution_ids:
            known = self._tracked.get(key)
            after[key] = known.state.version if known is not None else 0
        with span("orchestrator load", executions=len(after)):
            answer = await self._api.load(after, snapshots=snapshots)
        for key in answer["missing"]:
            log.warning("execution not found", extra={"execution_id": key})
            self._tracked.drop(key)
        more: list[int] = []
        unreadable: list[int] = []
        for document in answer["executions"]:
            key = int(document["execution_id"])
            tracked = self._tracked.get(key)
            if tracked is None or document.get("snapshot") is not None:
                tracked = _opened(document)
            if tracked is None:
                unreadable.append(key)
                continue
            for envelope in document["events"]:
                tracked.fold(Event.from_envelope(envelope))
            tracked.decided = int(document["decided_version"])
            self._tracked.put(key, tracked)
            if not document["complete"]:
                more.append(key)
            else:
                tracked.actionable = max(tracked.actionable, int(document["actionable_version"]))
        if unreadable and snapshots:
            more += await self._load_page(unreadable, snapshots=False)
        return more

    async def _keep(self, execution_ids: Iterable[int]) -> None:
        """Store snapshots of executions that have grown much; without one, loading folds the log from further back."""
        for key in execution_ids:
            tracked = self._tracked.get(key)
            if tracked is None or not tracked.needs_snapshot:
                continue
            tracked.kept_version = tracked.state.version
            try:
                encoded = dumps(snapshot_to_json(tracked.state))
                tracked.kept_bytes = len(encoded)
                with span("orchestrator snapshot", execution_id=key):
                    await self._api.put_snapshot(key, tracked.state.version, encoded)
                SNAPSHOTS.labels(outcome="stored").inc()
            except SnapshotSizeError:
                SNAPSHOTS.labels(outcome="too_large").inc()
            except (ApiRefusedError, ApiUnavailableError) as error:
                SNAPSHOTS.labels(outcome="failed").inc()
                log.warning("snapshot not stored", extra={"execution_id": key, "error": str(error)})

    # --- deciding --------------------------------------------------------------------------------------------------

    async def _decide(self, execution_ids: Iterable[int]) -> None:
        left = list(execution_ids)
        rejected: dict[int, str] = {}
        for _ in range(ROUNDS_MAX):
            decisions: dict[int, bytes] = {}
            for key in left:
                tracked = self._tracked.get(key)
                if tracked is not None and tracked.needs_decision:
                    decisions[key] = await self._decision(tracked, rejected.get(key))
            if not decisions:
                return
            lost = await self._commit(decisions, rejected)
            if not lost:
                return
            LOADS.labels(reason="conflict").inc(len(lost))
            await self._load(lost)
            left = lost
        log.warning("left to the reconciler", extra={"executions": len(left)})

    async def _decision(self, tracked: Tracked, rejection: str | None) -> bytes:
        """Return a decision as it is sent; one that is too large to be sent ends the execution."""
        decision = await self._decider.decision(tracked.state, rejection=rejection)
        encoded = _wire(tracked, decision)
        if len(encoded) <= DECISION_BYTES_MAX:
            return encoded
        text = f"one decision has {len(encoded)} bytes, at most {DECISION_BYTES_MAX} are allowed: loop over less data"
        log.warning("decision too large", extra={"execution_id": tracked.state.execution_id, "bytes": len(encoded)})
        return _wire(tracked, failure(tracked.state, error=text))

    async def _commit(self, decisions: Mapping[int, bytes], rejected: dict[int, str]) -> list[int]:
        """Commit and return the executions to look at again."""
        again: list[int] = []
        for chosen in _calls(decisions):
            results = await self._commit_call([decisions[key] for key in chosen])
            for key, result in zip(chosen, results, strict=True):
                again += [key] if self._settle(key, result, rejected) else []
        return again

    async def _commit_call(self, decisions: list[bytes]) -> list[Mapping[str, Any]]:
        """Commit decisions in one call; when it is refused for what it says, each alone, and the bad one is rejected.

        Raises:
            ApiRefusedError: for another reason, such as the token.
        """
        try:
            with span("orchestrator commit", decisions=len(decisions)):
                return list(await self._api.commit(decisions))
        except ApiRefusedError as error:
            if error.status not in REFUSED_STATUS:
                raise
            if len(decisions) == 1:
                return [{"outcome": "rejected", "error": str(error.detail)}]
        return [result for decision in decisions for result in await self._commit_call([decision])]

    def _settle(self, key: int, result: Mapping[str, Any], rejected: dict[int, str]) -> bool:
        """Take over what became of a decision; return whether to look again."""
        outcome = str(result["outcome"])
        DECISIONS.labels(outcome=outcome).inc()
        fields = {"execution_id": key, "outcome": outcome}
        tracked = self._tracked.get(key)
        log.debug("decided", extra=fields)
        if outcome == "committed":
            if tracked is not None:
                tracked.committed(decided=int(result["decided_version"]), stream=int(result["stream_version"]))
            return False
        if outcome in ("terminal", "missing"):
            self._tracked.drop(key)
            return False
        if outcome == "rejected":
            log.error("decision rejected", extra={**fields, "error": result.get("error")})
            rejected[key] = str(result.get("error"))
        return True


def _opened(document: Mapping[str, Any]) -> Tracked | None:
    """Return an execution as its snapshot has it, or before its first event; None when the snapshot cannot be read."""
    key, snapshot = int(document["execution_id"]), document.get("snapshot")
    if snapshot is None:
        return Tracked(initial_state(key, int(document["catalog_id"])))
    try:
        return Tracked(snapshot_from_json(snapshot))
    except SnapshotFormatError as error:
        log.info("snapshot cannot be read; folding the log", extra={"execution_id": key, "error": str(error)})
        return None


def _calls(decisions: Mapping[int, bytes]) -> Iterator[list[int]]:
    """Divide decisions into calls by number and size."""
    chosen: list[int] = []
    size = 0
    for key, encoded in decisions.items():
        if chosen and (len(chosen) == CALL_EXECUTIONS_MAX or size + len(encoded) > CALL_BYTES_MAX):
            yield chosen
            chosen, size = [], 0
        chosen.append(key)
        size += len(encoded)
    if chosen:
        yield chosen


def _wire(tracked: Tracked, decision: Decision) -> bytes:
    state = decision.state or tracked.state
    shown = None if tracked.shows(state) else status_document(state)
    tracked.showing = state
    document = {
        "execution_id": tracked.state.execution_id,
        "expected_decided_version": tracked.decided,
        "decided_version": tracked.state.version,
        "effects": [effect.to_json() for effect in decision.effects],
        "state": shown,
    }
    return dumps(document)
