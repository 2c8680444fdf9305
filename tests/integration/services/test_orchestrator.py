"""What the orchestrator promises, whatever order its messages come in."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import pytest

from services.orchestrator.orchestrator import Orchestrator
from shared.platform.api_client import ApiClient
from shared.platform.errors import ApiRefusedError
from tests.e2e.playbooks import DIAMOND, FAILING, HANDLED, LINEAR
from tests.support.api import RunningApi

Envelope = dict[str, Any]


def issued(log: list[Envelope]) -> list[str]:
    return [item["node_name"] for item in log if item["event_type"] == "command.issued"]


def types(log: list[Envelope]) -> list[str]:
    return [item["event_type"] for item in log]


async def test_a_step_that_ended_leads_to_the_next(api: RunningApi) -> None:
    orchestrator = Orchestrator(api.client, cache_max=10)
    execution = await api.start(LINEAR)
    await api.work(execution, "start", {"greeting": "Hi", "sum": 3})
    await orchestrator.handle({execution: await api.log(execution)})
    assert issued(await api.log(execution)) == ["start", "finish"]
    await api.work(execution, "finish", {"message": "HI"})
    await orchestrator.handle({execution: await api.log(execution)})
    assert types(await api.log(execution))[-2:] == ["workflow.completed", "playbook.completed"]


@pytest.mark.parametrize("seed", range(5))
async def test_loss_repetition_and_disorder_change_nothing(api: RunningApi, seed: int) -> None:
    chance = random.Random(seed)
    orchestrator = Orchestrator(api.client, cache_max=10)
    execution = await api.start(DIAMOND)

    async def deliver() -> None:
        log = await api.log(execution)
        arrived = [item for item in log * 2 if chance.random() < 0.5] or log[-1:]
        chance.shuffle(arrived)
        while arrived:
            batch = [arrived.pop() for _ in range(min(len(arrived), chance.randint(1, 4)))]
            await orchestrator.handle({execution: batch})
        await orchestrator.handle({execution: log[-1:]})  # the newest message arrives, at last

    for step in ("start", *chance.sample(["left", "right", "slow"], 3), "join"):
        await api.work(execution, step, {"side": step})
        await deliver()
        await deliver()
    log = await api.log(execution)
    assert Counter(issued(log)) == Counter(["start", "left", "right", "slow", "join"])
    assert types(log).count("playbook.completed") == 1
    assert [item["stream_version"] for item in log] == list(range(1, len(log) + 1))


async def test_of_two_orchestrators_one_decides(api: RunningApi) -> None:
    first, second = (Orchestrator(api.client, cache_max=10) for _ in range(2))
    execution = await api.start(DIAMOND)
    for step in ("start", "left", "slow", "right", "join"):
        await api.work(execution, step, {"side": step})
        log = await api.log(execution)
        await first.handle({execution: log})
        await second.handle({execution: log})
    log = await api.log(execution)
    assert Counter(issued(log)) == Counter(["start", "left", "right", "slow", "join"])
    assert types(log).count("playbook.completed") == 1


async def test_without_any_message_the_reconciler_decides(api: RunningApi) -> None:
    orchestrator = Orchestrator(api.client, cache_max=10)
    execution = await api.start(LINEAR)
    await api.work(execution, "start", {"greeting": "Hi", "sum": 3})
    await orchestrator.reconcile([execution])
    assert issued(await api.log(execution)) == ["start", "finish"]


async def test_an_execution_dropped_from_memory_goes_on(api: RunningApi) -> None:
    orchestrator = Orchestrator(api.client, cache_max=1)
    executions = [await api.start(LINEAR) for _ in range(3)]
    for step in ("start", "finish"):
        for execution in executions:
            await api.work(execution, step, {"greeting": "Hi", "sum": 3})
            await orchestrator.handle({execution: (await api.log(execution))[-3:]})
    for execution in executions:
        assert types(await api.log(execution))[-1] == "playbook.completed"


async def test_an_input_that_cannot_be_rendered_ends_the_execution_with_the_template(api: RunningApi) -> None:
    broken = LINEAR.replace("{{ start.greeting }}", "{{ start.greeting | no_such_filter_here }}")
    status, answer = await api.request("POST", "/api/catalog/register", {"content": broken})
    assert status == 422, "an unknown filter is known to be wrong before anything runs"
    assert "no_such_filter_here" in str(answer)
    failing = LINEAR.replace("{{ start.greeting }}", "{{ 1 / start.zero }}")
    orchestrator = Orchestrator(api.client, cache_max=10)
    execution = await api.start(failing)
    await api.work(execution, "start", {"zero": 0, "sum": 3})
    await orchestrator.handle({execution: await api.log(execution)})
    _, status_document = await api.request("GET", f"/api/executions/{execution}/status")
    assert status_document["status"] == "FAILED"
    assert "1 / start.zero" in status_document["error"]


async def test_a_failure_ends_the_execution_unless_an_arc_handles_it(api: RunningApi) -> None:
    orchestrator = Orchestrator(api.client, cache_max=10)
    failing, handled = await api.start(FAILING), await api.start(HANDLED)
    for execution in (failing, handled):
        await api.work(execution, "start", error="boom")
        await orchestrator.handle({execution: await api.log(execution)})
    assert types(await api.log(failing))[-1] == "playbook.failed"
    assert issued(await api.log(handled)) == ["start", "rescue"]


async def test_an_execution_that_was_cancelled_is_left_alone(api: RunningApi) -> None:
    orchestrator = Orchestrator(api.client, cache_max=10)
    execution = await api.start(LINEAR)
    await api.work(execution, "start", {"greeting": "Hi", "sum": 3})
    log = await api.log(execution)
    await api.request("POST", f"/api/executions/{execution}/cancel")
    await orchestrator.handle({execution: log})
    assert types(await api.log(execution))[-1] == "execution.cancelled"
    assert issued(await api.log(execution)) == ["start"]


LONG = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: long, path: services/long}
workflow:
  - step: start
    loop: {in: 260, iterator: n, spec: {mode: parallel, max_in_flight: 260}}
    tool: {kind: noop}
    next: {arcs: [{step: end}]}
  - step: end
    tool: {kind: noop}
"""


async def answer_items(api: RunningApi, execution: int, indexes: range) -> None:
    commands = {
        item["meta"]["loop_iteration_index"]: item["command_id"]
        for item in await api.log(execution)
        if item["event_type"] == "command.issued" and item["node_name"] == "start"
    }
    for start in range(indexes.start, indexes.stop, 60):  # four events each: a batch has 256 at most
        events = [
            {"step": "start", "name": kind, "payload": {"command_id": commands[index], "response": {"n": index}}}
            for index in indexes[start - indexes.start : start - indexes.start + 60]
            for kind in ("command.started", "call.done", "step.exit", "command.completed")
        ]
        body = {"execution_id": str(execution), "worker_id": "w1", "events": events}
        status, answer = await api.request("POST", "/api/events/batch", body)
        assert status == 202, answer


@pytest.mark.parametrize("readable", [True, False])
async def test_a_long_execution_is_loaded_from_its_snapshot(api: RunningApi, readable: bool) -> None:
    execution = await api.start(LONG)
    await answer_items(api, execution, range(259))
    await Orchestrator(api.client, cache_max=10).handle({execution: await api.log(execution)})
    document = (await api.client.load({execution: 0}))["executions"][0]
    assert document["snapshot"]["version"] > 1000
    assert not document["events"], "nothing has happened since"
    if not readable:  # of a release to come, say
        await api.client.put_snapshot(execution, document["snapshot"]["version"] + 1, b'{"format": 999}')
    await answer_items(api, execution, range(259, 260))
    fresh = Orchestrator(api.client, cache_max=10)
    await fresh.handle({execution: (await api.log(execution))[-1:]})
    log = await api.log(execution)
    done = next(item for item in log if item["event_type"] == "loop.done")
    assert done["context"]["result"]["stats"] == {"total": 260, "success": 260, "failed": 0}
    assert issued(log)[-1] == "end"
    await api.work(execution, "end")
    await fresh.handle({execution: (await api.log(execution))[-3:]})
    assert types(await api.log(execution))[-1] == "playbook.completed"
    assert (await api.client.load({execution: 0}))["executions"][0]["snapshot"] is None, "it is of no more use"


async def test_a_first_event_that_comes_again_without_its_body_is_caught_up_from_the_snapshot(api: RunningApi) -> None:
    """As when the consumer is made anew and delivers the stream from its start to an orchestrator that knows nothing."""
    execution = await api.start(LONG)
    await answer_items(api, execution, range(260))
    log = await api.log(execution)
    await Orchestrator(api.client, cache_max=10).handle({execution: log})
    assert (await api.client.load({execution: 0}))["executions"][0]["snapshot"] is not None
    fresh = Orchestrator(api.client, cache_max=10)
    await fresh.handle({execution: [{**log[0], "context": None, "elided": True}]})
    await api.work(execution, "end")
    await fresh.handle({execution: (await api.log(execution))[-3:]})
    assert types(await api.log(execution))[-1] == "playbook.completed"


class Refusing:
    """The API, but for commits that name one execution: it refuses those whole."""

    def __init__(self, client: ApiClient, execution: int, status: int) -> None:
        self._client = client
        self._execution = str(execution).encode()
        self._status = status
        self.refusals = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def commit(self, decisions: Sequence[bytes]) -> list[dict[str, Any]]:
        """Commit, or refuse."""
        if self.refusals < 2 and any(self._execution in decision for decision in decisions):
            self.refusals += 1
            raise ApiRefusedError(self._status, "/api/internal/executions/commit", "the database refuses these values")
        return await self._client.commit(decisions)


async def test_a_decision_that_is_refused_ends_its_execution_and_no_other(api: RunningApi) -> None:
    bad, good = await api.start(LINEAR), await api.start(LINEAR)
    for execution in (bad, good):
        await api.work(execution, "start", {"greeting": "Hi", "sum": 3})
    orchestrator = Orchestrator(cast("ApiClient", Refusing(api.client, bad, 422)), cache_max=10)
    await orchestrator.handle({execution: await api.log(execution) for execution in (bad, good)})
    assert issued(await api.log(good)) == ["start", "finish"]
    ended = (await api.log(bad))[-1]
    assert ended["event_type"] == "playbook.failed"
    assert "the database refuses these values" in ended["error"]


async def test_a_refusal_that_is_not_of_the_decision_ends_nothing(api: RunningApi) -> None:
    execution = await api.start(LINEAR)
    await api.work(execution, "start", {"greeting": "Hi", "sum": 3})
    orchestrator = Orchestrator(cast("ApiClient", Refusing(api.client, execution, 403)), cache_max=10)
    with pytest.raises(ApiRefusedError):
        await orchestrator.handle({execution: await api.log(execution)})
    assert issued(await api.log(execution)) == ["start"]
