"""The orchestrator process: one loop over the event stream, one over the reconciler, both through one `Orchestrator`."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from typing import Any

from services.orchestrator.metrics import BATCH_SECONDS, DEAD_LETTERED, EVENTS, PENDING, UNDECIDED
from services.orchestrator.orchestrator import Orchestrator
from shared.engine import Options
from shared.messaging.consumer import Message
from shared.messaging.topology import ConsumerSpec, events_stream
from shared.platform.api_client import ApiClient
from shared.platform.consuming import consuming, give_back
from shared.platform.dead_letters import keep_dead_letter
from shared.platform.errors import ApiRefusedError, ApiUnavailableError
from shared.platform.lifecycle import pause, run_service
from shared.platform.settings import OrchestratorSettings
from shared.platform.tracing import extract, span
from shared.wire.envelope import EnvelopeError, read_envelope

log = logging.getLogger(__name__)

FETCH_SECONDS = 1.0  # one wait for messages; bounds how long a stop takes
NAK_SECONDS = 0.5  # before a batch that the API could not take comes again; jittered up to twice that
RECONCILE_MAX = 200  # executions of one pass
RECONCILE_PAUSE_MAX_SECONDS = 30.0  # between passes while the API does not answer


class EventLoop:
    """Takes batches off the stream and hands them to the orchestrator."""

    def __init__(self, api: ApiClient, orchestrator: Orchestrator, turn: asyncio.Lock) -> None:
        self._api = api
        self._orchestrator = orchestrator
        self._turn = turn

    async def handle(self, messages: Sequence[Message]) -> None:
        """Handle one batch: acknowledged when everything in it is committed, given back when the API is away."""
        PENDING.set(messages[-1].pending)
        try:
            with (
                BATCH_SECONDS.time(),
                span("orchestrator batch", parent=extract(messages[0].headers), size=len(messages)),
            ):
                readable, events = await self._read(messages)
                if events:
                    async with self._turn:
                        await self._orchestrator.handle(events)
        except (ApiUnavailableError, ApiRefusedError) as error:
            log.warning("batch given back", extra={"error": str(error), "messages": len(messages)})
            await give_back(messages, delay_seconds=NAK_SECONDS * (1 + random.random()))  # noqa: S311 - spreads load
            return
        for message in readable:
            await message.ack()
        EVENTS.inc(len(readable))

    async def _read(self, messages: Sequence[Message]) -> tuple[list[Message], dict[int, list[Mapping[str, Any]]]]:
        readable: list[Message] = []
        events: dict[int, list[Mapping[str, Any]]] = {}
        for message in messages:
            try:
                envelope = read_envelope(message.data)
            except EnvelopeError as error:
                await self._give_up(message, str(error))
                continue
            readable.append(message)
            events.setdefault(envelope["execution_id"], []).append(envelope)
        return readable, events

    async def _give_up(self, message: Message, reason: str) -> None:
        """Keep what is no event of ours where people find it; it must not stand in the way of the others."""
        log.error("message is no event; kept as a dead letter", extra={"subject": message.subject, "error": reason})
        DEAD_LETTERED.inc()
        await keep_dead_letter(self._api, message, source="orchestrator", reason=reason)
        await message.term()


async def _reconcile(
    api: ApiClient, orchestrator: Orchestrator, turn: asyncio.Lock, stop: asyncio.Event, seconds: float
) -> None:
    """Let the API repair what is overdue and decide what nobody decided, every `seconds`, until `stop`."""
    wait = seconds
    while not stop.is_set():
        await pause(stop, wait * random.uniform(0.75, 1.25))  # noqa: S311 - spreads replicas
        if stop.is_set():
            return
        try:
            with span("orchestrator reconcile"):
                found = [int(item) for item in (await api.reconcile(RECONCILE_MAX))["undecided"]]
                if found:
                    UNDECIDED.inc(len(found))
                    log.info("undecided executions", extra={"executions": len(found)})
                    async with turn:
                        await orchestrator.reconcile(found)
            wait = seconds
        except (ApiUnavailableError, ApiRefusedError) as error:
            wait = min(2 * wait, max(seconds, RECONCILE_PAUSE_MAX_SECONDS))
            log.warning("reconciler: api unavailable", extra={"error": str(error)})


async def main(settings: OrchestratorSettings, stop: asyncio.Event) -> None:
    """Decide until `stop` is set.

    Raises:
        OSError: the address of the metrics cannot be bound.
    """
    spec = ConsumerSpec(
        stream=events_stream(settings.noetl_event_nats_stream), durable=settings.noetl_orchestrator_consumer
    )
    port = settings.noetl_orchestrator_metrics_port
    async with consuming(settings, spec, name="playhead-orchestrator", metrics_port=port, stop=stop) as opened:
        if opened is None:
            return
        api, consumer = opened
        orchestrator = Orchestrator(
            api,
            cache_max=settings.noetl_orchestrator_cache_max,
            options=Options(loop_in_flight=settings.noetl_loop_in_flight_default),
        )
        turn = asyncio.Lock()
        events = EventLoop(api, orchestrator, turn)
        async with asyncio.TaskGroup() as group:
            group.create_task(_reconcile(api, orchestrator, turn, stop, settings.noetl_orchestrator_reconcile_seconds))
            while not stop.is_set():
                messages = await consumer.fetch(settings.noetl_orchestrator_batch_size, FETCH_SECONDS)
                if messages:
                    await events.handle(messages)


def run() -> int:
    """Run the service with settings from the environment; return its exit code."""
    return run_service("orchestrator", OrchestratorSettings, main)
