"""How many commands are in flight, which pools a worker serves, and how it learns of a cancellation."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.worker.app import consumer_specs
from services.worker.cancelling import Cancelled, CancelWatch
from services.worker.limits import SLEEPERS_MAX
from services.worker.slots import Slots
from shared.platform.errors import ApiUnavailableError
from shared.platform.settings import WorkerSettings


def settings(**values: Any) -> WorkerSettings:
    return WorkerSettings(**values)


async def test_a_command_that_sleeps_lets_another_in() -> None:
    slots = Slots(1)
    slots.take()
    assert slots.free == 0
    async with slots.given_up():
        assert await slots.wait_free() == 1
        slots.take()
        assert slots.free == 0
    assert slots.free == 0  # two in flight now that it is awake, and no more
    slots.give_back()
    assert slots.free == 0
    slots.give_back()
    assert slots.free == 1


async def test_sleepers_are_bounded() -> None:
    slots = Slots(1)
    for _ in range(SLEEPERS_MAX + 2):
        slots.take()
        await slots.given_up().__aenter__()
    assert slots.free == 0


async def test_who_waits_for_a_place_gets_it() -> None:
    slots = Slots(1)
    slots.take()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        waiting = group.create_task(slots.wait_free())
        await asyncio.sleep(0)
        slots.give_back()
    assert waiting.result() == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {"noetl_worker_pool": None}),
        ({"nats_filter_subject": "noetl.commands.x.>"}, {"noetl_worker_pool": "noetl.commands.x.>"}),
        (
            {"noetl_worker_pool_segments": "legacy, shared,python,shared"},
            {
                "noetl_worker_pool": "noetl.commands",
                "noetl_worker_pool_shared": "noetl.commands.shared.>",
                "noetl_worker_pool_python": "noetl.commands.python.>",
            },
        ),
        (
            {"noetl_command_routing_enabled": True, "noetl_worker_pool_name": "gpu.1"},
            {"noetl_worker_pool_gpu-1": "noetl.commands.gpu-1.>"},
        ),
    ],
)
def test_durables_of_a_worker(values: dict[str, Any], expected: dict[str, str | None]) -> None:
    assert {spec.durable: spec.filter_subject for spec in consumer_specs(settings(**values))} == expected


def test_with_routing_the_default_pool_serves_what_has_no_pool_of_its_own() -> None:
    filters = [spec.filter_subject for spec in consumer_specs(settings(noetl_command_routing_enabled=True))]
    assert filters == ["noetl.commands", *(f"noetl.commands.{pool}.>" for pool in ("shared", "python", "system"))]


class Asked:
    """An API that says no, fails once, and then says yes."""

    def __init__(self) -> None:
        self.times = 0

    async def cancelled(self, execution_id: int) -> Cancelled:
        self.times += 1
        if self.times == 2:
            raise ApiUnavailableError("away")
        return Cancelled(whole=self.times > 3, commands=frozenset({1}) if self.times == 3 else frozenset())


async def test_one_question_answers_all_commands_of_an_execution() -> None:
    api = Asked()
    watch = CancelWatch(api, 0.02)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for number in range(2, 52):
            group.create_task(watch.until_cancelled(7, number))
    assert api.times == 4


async def test_a_command_that_was_given_up_is_told_apart() -> None:
    api = Asked()
    watch = CancelWatch(api, 0.02)
    async with asyncio.timeout(10):
        await watch.until_cancelled(7, 1)
    assert api.times == 3, "the rest of the execution goes on"
