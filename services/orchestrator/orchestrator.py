"""From events to committed decisions: fold, decide, commit a whole batch in one call, and repair what others left.

Everything is idempotent. A decision is committed only if nobody decided before (compare-and-set); who loses loads and looks
again. Messages are acknowledged after the commit, so what a crash leaves comes again.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from services.orchestrator.metrics import CACHED, DECISIONS, FAILURES, LOADS
from services.orchestrator.tracked import Tracked, TrackedExecutions
from shared.engine import (
    Decision,
    Event,
    Playbook,
    PlaybookError,
    Problem,
    TemplateError,
    decide,
    failure,
    initial_state,
    parse_playbook,
    status_document,
)
from shared.platform.api_client import ApiClient
from shared.platform.errors import ApiRefusedError
from shared.platform.tracing import span

log = logging.getLogger(__name__)

CALL_EXECUTIONS_MAX = 200  # of one load or commit (docs/contracts.md section 3)
ROUNDS_MAX = 3  # load and decide again after a lost compare-and-set; then the reconciler takes over
LOAD_PAGES_MAX = 1000  # of 5000 events: an execution of five million events
PLAYBOOKS_MAX = 256  # parsed playbooks in memory


class Orchestrator:
    """Not safe for concurrent calls: one task at a time."""

    def __init__(self, api: ApiClient, *, cache_max: int) -> None:
        self._api = api
        self._tracked = TrackedExecutions(cache_max)
        self._playbooks: OrderedDict[int, Playbook] = OrderedDict()

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

    async def _load_page(self, execution_ids: list[int]) -> list[int]:
        """Load one page and return the executions that have more."""
        after: dict[int, int] = {}
        for key in execution_ids:
            known = self._tracked.get(key)
            after[key] = known.state.version if known is not None else 0
        with span("orchestrator load", executions=len(after)):
            answer = await self._api.load(after)
        for key in answer["missing"]:
            log.warning("execution not found", extra={"execution_id": key})
            self._tracked.drop(key)
        more: list[int] = []
        for document in answer["executions"]:
            key = int(document["execution_id"])
            tracked = self._tracked.get(key) or Tracked(initial_state(key, int(document["catalog_id"])))
            for envelope in document["events"]:
                tracked.fold(Event.from_envelope(envelope))
            tracked.decided = int(document["decided_version"])
            self._tracked.put(key, tracked)
            if not document["complete"]:
                more.append(key)
        return more

    async def _playbook(self, catalog_id: int) -> Playbook:
        """Return a parsed playbook.

        Raises:
            PlaybookError: the entry is gone or cannot be run.
        """
        found = self._playbooks.get(catalog_id)
        if found is not None:
            self._playbooks.move_to_end(catalog_id)
            return found
        try:
            document = await self._api.playbook(catalog_id)
        except ApiRefusedError as error:
            if error.status != 404:
                raise
            raise PlaybookError(
                [Problem(line=0, column=0, key="", message=f"catalog entry {catalog_id} is gone")]
            ) from error
        playbook = self._playbooks[catalog_id] = parse_playbook(document["content"])
        if len(self._playbooks) > PLAYBOOKS_MAX:
            self._playbooks.popitem(last=False)
        return playbook

    # --- deciding --------------------------------------------------------------------------------------------------

    async def _decide(self, execution_ids: Iterable[int]) -> None:
        left = list(execution_ids)
        rejected: dict[int, str] = {}
        for _ in range(ROUNDS_MAX):
            decisions: dict[int, dict[str, Any]] = {}
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

    async def _decision(self, tracked: Tracked, rejection: str | None) -> dict[str, Any]:
        """Return the decision to commit; one that cannot be made ends the execution and says why."""
        state = tracked.state
        fields = {"execution_id": state.execution_id}
        try:
            if rejection is not None:
                raise RuntimeError(rejection)
            decision = decide(state, await self._playbook(state.catalog_id), now=datetime.now(UTC))
        except (TemplateError, PlaybookError) as error:
            log.info("execution cannot go on", extra={**fields, "error": str(error)[:500]})
            FAILURES.labels(kind=type(error).__name__).inc()
            decision = failure(state, error=str(error))
        except (
            ArithmeticError,
            AssertionError,
            AttributeError,
            LookupError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            log.exception("execution cannot be decided", extra=fields)  # a bug: deciding is pure and would fail again
            FAILURES.labels(kind="internal").inc()
            decision = failure(state, error=f"the engine failed: {type(error).__name__}: {error}")
        return _wire(tracked, decision)

    async def _commit(self, decisions: Mapping[int, Mapping[str, Any]], rejected: dict[int, str]) -> list[int]:
        """Commit and return the executions to look at again."""
        again: list[int] = []
        keys = list(decisions)
        for start in range(0, len(keys), CALL_EXECUTIONS_MAX):
            chosen = keys[start : start + CALL_EXECUTIONS_MAX]
            with span("orchestrator commit", decisions=len(chosen)):
                results = await self._api.commit([decisions[key] for key in chosen])
            for key, result in zip(chosen, results, strict=True):
                again += [key] if self._settle(key, result, rejected) else []
        return again

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
            rejected[key] = f"its decision was rejected: {result.get('error')}"
        return True


def _wire(tracked: Tracked, decision: Decision) -> dict[str, Any]:
    return {
        "execution_id": tracked.state.execution_id,
        "expected_decided_version": tracked.decided,
        "decided_version": tracked.state.version,
        "effects": [effect.to_json() for effect in decision.effects],
        "state": status_document(decision.state or tracked.state),
    }
