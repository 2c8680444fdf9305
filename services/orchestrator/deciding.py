"""One execution's next decision: its playbook, the data its templates reach for, and what is done when it cannot be made."""

from __future__ import annotations

import logging
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any

from services.orchestrator.metrics import FAILURES, MISSES, REFERENCES
from shared.engine import (
    LOST,
    Decision,
    NeedsDataError,
    Options,
    Playbook,
    PlaybookError,
    Problem,
    State,
    TemplateError,
    decide,
    failure,
    loaded,
    parse_playbook,
)
from shared.engine.limits import REFERENCES_PER_DECISION_MAX
from shared.platform.api_client import ApiClient
from shared.platform.errors import ApiRefusedError
from shared.platform.tracing import span

log = logging.getLogger(__name__)

PLAYBOOKS_MAX = 256  # parsed playbooks in memory
REFERENCES_CACHED_MAX = 4  # large results in memory; the step after the one that needed it often needs it again
ERROR_CHARS_MAX = 500  # of an error in a log line


class Decider:
    """Decides; keeps parsed playbooks and the newest large results."""

    def __init__(self, api: ApiClient, options: Options) -> None:
        self._api = api
        self._options = options
        self._playbooks: OrderedDict[int, Playbook] = OrderedDict()
        self._data: OrderedDict[str, Any] = OrderedDict()

    async def decision(self, state: State, *, rejection: str | None) -> Decision:
        """Return the decision to commit; one that cannot be made ends the execution and says why.

        Args:
            state: the folded execution.
            rejection: why the API refused the decision before, None when it did not.

        Raises:
            ApiUnavailableError: ask again.
        """
        fields = {"execution_id": state.execution_id}
        if rejection is not None:
            return failure(state, error=f"its decision was rejected: {rejection}")
        try:
            return await self._decided(state, await self._playbook(state.catalog_id))
        except (TemplateError, PlaybookError) as error:
            log.info("execution cannot go on", extra={**fields, "error": str(error)[:ERROR_CHARS_MAX]})
            FAILURES.labels(kind=type(error).__name__).inc()
            return failure(state, error=str(error))
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
            return failure(state, error=f"the engine failed: {type(error).__name__}: {error}")

    async def _decided(self, state: State, playbook: Playbook) -> Decision:
        """Decide, loading data by reference as far as templates reach for it."""
        data: dict[str, Any] = {}
        for _ in range(REFERENCES_PER_DECISION_MAX + 1):
            try:
                with loaded(data):
                    decision = decide(state, playbook, now=datetime.now(UTC), options=self._options)
                MISSES.inc(decision.misses)
                return decision
            except NeedsDataError as missing:
                data[missing.locator] = await self._load(state.execution_id, missing.locator)
        raise TemplateError(f"templates reach into more than {REFERENCES_PER_DECISION_MAX} stored results at once")

    async def _load(self, execution_id: int, locator: str) -> Any:
        if locator in self._data:
            self._data.move_to_end(locator)
            return self._data[locator]
        REFERENCES.inc()
        with span("orchestrator reference", execution_id=execution_id):
            try:
                answer = await self._api.resolve_references([locator])
            except ApiRefusedError as error:
                raise TemplateError(f"the stored result {locator} cannot be used: {error.detail}") from error
        if locator not in answer["data"]:
            log.info("stored result is gone", extra={"execution_id": execution_id, "locator": locator})
            return LOST
        self._data[locator] = answer["data"][locator]
        if len(self._data) > REFERENCES_CACHED_MAX:
            self._data.popitem(last=False)
        return self._data[locator]

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
