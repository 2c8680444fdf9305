"""The projector process: event stream to read models, in batches, idempotent. The ack floor is its only checkpoint."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from services.projector.metrics import BATCH_SECONDS, DEAD_LETTERED, LAG_SECONDS, PENDING, PROJECTED
from services.projector.projections import posted, projections
from shared.messaging.consumer import Message
from shared.messaging.topology import ConsumerSpec, events_stream
from shared.platform.api_client import ApiClient
from shared.platform.consuming import consuming, give_back
from shared.platform.dead_letters import keep_dead_letter
from shared.platform.errors import ApiRefusedError, ApiUnavailableError
from shared.platform.lifecycle import pause, run_service
from shared.platform.settings import ProjectorSettings
from shared.platform.tracing import extract, span
from shared.wire.envelope import EnvelopeError, read_envelope

log = logging.getLogger(__name__)

FETCH_SECONDS = 1.0  # one wait for messages; bounds how long a stop takes
LINGER_SECONDS = 0.05  # a batch that is not full waits this long for more: read models may lag, transactions cost
NAK_SECONDS = 1.0  # before a batch that the API could not take comes again; jittered up to twice that


class Projector:
    """Projects batches of messages."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api

    async def handle(self, messages: Sequence[Message]) -> None:
        """Project one batch: acknowledged when it is stored, given back when the API is away."""
        PENDING.set(messages[-1].pending)
        try:
            with BATCH_SECONDS.time(), span("projector batch", parent=extract(messages[0].headers), size=len(messages)):
                await self._project(await self._readable(messages))
        except ApiUnavailableError as error:
            log.warning("batch given back", extra={"error": str(error), "messages": len(messages)})
            await give_back(messages, delay_seconds=NAK_SECONDS * (1 + random.random()))  # noqa: S311 - spreads load

    async def _readable(self, messages: Sequence[Message]) -> list[tuple[Message, dict[str, Any]]]:
        found: list[tuple[Message, dict[str, Any]]] = []
        for message in messages:
            try:
                found.append((message, read_envelope(message.data)))
            except EnvelopeError as error:
                await self._give_up(message, str(error))
        return found

    async def _project(self, batch: Sequence[tuple[Message, dict[str, Any]]]) -> None:
        """Post a batch; of one that is refused, halve until the message at fault stands alone (log2 of the batch deep)."""
        if not batch:
            return
        envelopes = [envelope for _, envelope in batch]
        try:
            await self._api.project([posted(envelope) for envelope in envelopes], projections(envelopes))
        except ApiRefusedError as error:
            if error.status in (401, 403, 404):  # about us, not about the messages
                raise ApiUnavailableError(str(error)) from error
            if len(batch) == 1:
                await self._give_up(batch[0][0], str(error), execution_id=envelopes[0]["execution_id"])
                return
            middle = len(batch) // 2
            await self._project(batch[:middle])
            await self._project(batch[middle:])
            return
        for message, _ in batch:
            await message.ack()
        PROJECTED.inc(len(batch))
        _observe_lag(envelopes[-1])

    async def _give_up(self, message: Message, reason: str, *, execution_id: int | None = None) -> None:
        log.error("message given up", extra={"subject": message.subject, "execution_id": execution_id, "error": reason})
        DEAD_LETTERED.inc()
        await keep_dead_letter(self._api, message, source="projector", reason=reason, execution_id=execution_id)
        await message.term()


def _observe_lag(envelope: dict[str, Any]) -> None:
    try:
        at = datetime.fromisoformat(envelope["event_time"])
        LAG_SECONDS.set(max(0.0, (datetime.now(UTC) - at).total_seconds()))
    except (KeyError, TypeError, ValueError):
        log.debug("event without a time")


async def main(settings: ProjectorSettings, stop: asyncio.Event) -> None:
    """Project until `stop` is set.

    Raises:
        OSError: the address of the metrics cannot be bound.
    """
    spec = ConsumerSpec(
        stream=events_stream(settings.noetl_event_nats_stream), durable=settings.noetl_projector_nats_consumer
    )
    port, size = settings.noetl_projector_metrics_port, settings.noetl_projector_batch_size
    async with consuming(settings, spec, name="playhead-projector", metrics_port=port, stop=stop) as opened:
        if opened is None:
            return
        api, consumer = opened
        projector = Projector(api)
        while not stop.is_set():
            messages = await consumer.fetch(size, FETCH_SECONDS)
            if messages:
                await pause(stop, LINGER_SECONDS)
                messages += await consumer.fetch(size - len(messages), 0.0) if len(messages) < size else []
                await projector.handle(messages)


def run() -> int:
    """Run the service with settings from the environment; return its exit code."""
    return run_service("projector", ProjectorSettings, main)
