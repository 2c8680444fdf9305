"""What the write side promises, on a real Postgres."""

from __future__ import annotations

import asyncio

import pytest

from services.api.http import HttpError
from services.api.store.commit import CommitDecision
from services.api.store.lifecycle import CancelExecution
from services.api.store.stream_writer import StreamWriter
from shared.engine import AppendEvent
from tests.integration.store.conftest import Store


def terminal(event_type: str = "playbook.completed") -> AppendEvent:
    return AppendEvent(
        event_type=event_type,
        node_name="a/b",
        node_type=None,
        status=event_type.rpartition(".")[2],
        context={"status": "completed", "error": None},
        result={"status": "COMPLETED"},
        meta=None,
        error=None,
        parent_event_id=None,
        command_id=None,
    )


def decision(
    execution_id: int, *, expected: int, decided: int, effects: tuple[AppendEvent, ...] = ()
) -> CommitDecision:
    return CommitDecision(
        execution_id, expected_decided_version=expected, decided_version=decided, effects=effects, state=None
    )


async def test_start_stores_events_command_and_outbox_as_one(store: Store) -> None:
    execution_id, (command_id,) = await store.start()
    log = await store.log(execution_id)
    assert [(row["stream_version"], row["event_type"]) for row in log] == [
        (1, "playbook.initialized"),
        (2, "workflow.initialized"),
        (3, "command.issued"),
    ]
    row = await store.execution(execution_id)
    assert (row["stream_version"], row["decided_version"], row["actionable_version"]) == (3, 3, 0)
    assert (await store.command(command_id))["status"] == "PENDING"
    outbox = await store.database.fetch(
        "SELECT * FROM noetl.outbox WHERE execution_id = $1 ORDER BY outbox_id", execution_id
    )
    assert [row["subject"].split(".")[1] for row in outbox] == ["events", "events", "events", "commands"]
    notification = outbox[-1]["payload"]
    assert notification == {
        "execution_id": execution_id,
        "event_id": log[-1]["event_id"],
        "command_id": command_id,
        "step": "step_0",
        "server_url": "http://api.test",
    }


async def test_versions_have_no_gaps_under_concurrent_writers(store: Store) -> None:
    execution_id, _ = await store.start()
    async with asyncio.TaskGroup() as group:
        for index in range(100):
            group.create_task(store.report(execution_id, f"note.{index}"))
    versions = [row["stream_version"] for row in await store.log(execution_id)]
    assert versions == list(range(1, 104))
    assert len({row["event_id"] for row in await store.log(execution_id)}) == 103


async def test_two_processes_on_one_execution_never_share_a_version(store: Store, database_dsn: str) -> None:
    execution_id, _ = await store.start()
    other = StreamWriter(
        store.database,
        lanes=1,
        queue_max=256,
        batch_max=8,
        wire=store.writer._wire,
        next_id=store.next_id,
        on_commit=lambda _: None,
    )
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(other.run(stop))
        first = store.writer
        async with asyncio.TaskGroup() as writes:
            for index in range(40):
                store.writer = first if index % 2 else other
                writes.create_task(store.report(execution_id, f"note.{index}"))
        store.writer = first
        stop.set()
        await running
    assert [row["stream_version"] for row in await store.log(execution_id)] == list(range(1, 44))


async def test_a_step_moves_its_command_from_pending_to_completed(store: Store) -> None:
    execution_id, (command_id,) = await store.start()
    await store.claim(execution_id, command_id)
    assert (await store.command(command_id))["status"] == "CLAIMED"
    await store.report(execution_id, "command.started", "step.enter", command_id=command_id)
    assert (await store.command(command_id))["status"] == "RUNNING"
    await store.report(
        execution_id,
        "call.done",
        "step.exit",
        "command.completed",
        command_id=command_id,
        payload={"response": {"n": 1}},
    )
    row = await store.command(command_id)
    assert row["status"] == "COMPLETED"
    assert row["completed_at"] is not None
    execution = await store.execution(execution_id)
    log = await store.log(execution_id)
    done = next(event for event in log if event["event_type"] == "call.done")
    assert execution["actionable_version"] == done["stream_version"]
    assert execution["decided_version"] == 3
    assert done["context"] == {"response": {"n": 1}}


async def test_the_same_idempotency_key_stores_nothing_twice(store: Store) -> None:
    execution_id, (command_id,) = await store.start()
    await store.claim(execution_id, command_id)
    first = await store.report(execution_id, "note.a", "note.b", command_id=command_id, key="k1")
    before = len(await store.log(execution_id))
    again = await store.report(execution_id, "note.a", "note.b", command_id=command_id, key="k1")
    assert again.duplicate
    assert (again.request_id, again.first_version, again.count) == (first.request_id, first.first_version, first.count)
    assert len(await store.log(execution_id)) == before


async def test_a_second_call_event_of_a_command_is_answered_with_the_first(store: Store) -> None:
    execution_id, (command_id,) = await store.start()
    await store.claim(execution_id, command_id)
    first = await store.report(execution_id, "call.done", command_id=command_id)
    again = await store.report(execution_id, "call.error", command_id=command_id)
    assert again.event_ids == first.event_ids
    calls = [row for row in await store.log(execution_id) if row["event_type"].startswith("call.")]
    assert len(calls) == 1


async def test_report_of_a_superseded_worker_is_kept_and_changes_nothing(store: Store) -> None:
    execution_id, (command_id,) = await store.start()
    await store.claim(execution_id, command_id, worker="w1")
    await store.database.fetch(
        "UPDATE noetl.command SET lease_until = now() - interval '1 s' WHERE command_id = $1", command_id
    )
    claimed = await store.claim(execution_id, command_id, worker="w2")
    assert claimed.attempt == 2
    late = await store.report(execution_id, "call.done", "command.completed", command_id=command_id, worker="w1")
    assert late.superseded
    row = await store.command(command_id)
    assert (row["status"], row["worker_id"], row["call_event_id"]) == ("CLAIMED", "w2", None)
    assert (await store.execution(execution_id))["actionable_version"] == 0
    kept = [event for event in await store.log(execution_id) if event["event_type"] == "call.done"]
    assert [event["meta"]["superseded"] for event in kept] == [True]


async def test_a_command_that_only_reports_its_end_is_actionable(store: Store) -> None:
    execution_id, (command_id,) = await store.start()
    await store.claim(execution_id, command_id)
    await store.report(execution_id, "command.failed", command_id=command_id, payload={"error": "no"})
    row = await store.execution(execution_id)
    assert row["actionable_version"] == row["stream_version"]
    assert (await store.command(command_id))["status"] == "FAILED"


async def test_unknown_execution_is_refused_alone(store: Store) -> None:
    execution_id, _ = await store.start()
    async with asyncio.TaskGroup() as group:
        good = group.create_task(store.report(execution_id, "note"))
        bad = group.create_task(_refusal(store, 12345))
    assert good.result().event_ids
    assert bad.result() == 404


async def _refusal(store: Store, execution_id: int) -> int:
    with pytest.raises(HttpError) as caught:
        await store.report(execution_id, "note")
    return caught.value.status


async def test_a_write_the_database_refuses_does_not_take_its_neighbours_down(store: Store) -> None:
    execution_id, _ = await store.start()
    poison = store.incoming("note", None)
    broken = poison.__class__(**{name: getattr(poison, name) for name in poison.__slots__} | {"result": {"status": 1}})
    from datetime import timedelta

    from services.api.store.append import AppendEvents

    bad = AppendEvents(execution_id, [broken], request_id=1, idempotency_key=None, lease=timedelta(seconds=1))

    async def refused() -> int:
        with pytest.raises(HttpError) as caught:
            await store.writer.submit(bad)
        return caught.value.status

    async with asyncio.TaskGroup() as group:
        refusal = group.create_task(refused())
        good = [group.create_task(store.report(execution_id, f"note.{index}")) for index in range(10)]
    assert refusal.result() == 422
    assert all(task.result().event_ids for task in good)
    assert [row["stream_version"] for row in await store.log(execution_id)] == list(range(1, 14))


async def test_only_one_decision_per_version_is_committed(store: Store) -> None:
    execution_id, (command_id,) = await store.start()
    await store.claim(execution_id, command_id)
    await store.report(execution_id, "call.done", command_id=command_id)
    version = (await store.execution(execution_id))["stream_version"]
    outcomes = []
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                store.writer.submit(decision(execution_id, expected=3, decided=version, effects=(terminal(),)))
            )
            for _ in range(5)
        ]
    outcomes = sorted(task.result().outcome for task in tasks)
    assert outcomes == ["committed", "terminal", "terminal", "terminal", "terminal"]
    ends = [row for row in await store.log(execution_id) if row["event_type"] == "playbook.completed"]
    assert len(ends) == 1
    row = await store.execution(execution_id)
    assert (row["status"], row["end_time"] is not None) == ("COMPLETED", True)


async def test_a_decision_on_a_stale_mark_is_a_conflict(store: Store) -> None:
    execution_id, _ = await store.start()
    result = await store.writer.submit(decision(execution_id, expected=2, decided=3))
    assert (result.outcome, result.decided_version) == ("conflict", 3)


async def test_a_decision_does_not_pass_events_it_has_not_seen(store: Store) -> None:
    execution_id, (command_id,) = await store.start()
    await store.claim(execution_id, command_id)
    await store.report(execution_id, "call.done", command_id=command_id)
    seen = (await store.execution(execution_id))["stream_version"]
    await store.report(execution_id, "note")
    result = await store.writer.submit(decision(execution_id, expected=3, decided=seen))
    assert (result.outcome, result.decided_version) == ("committed", seen)


async def test_a_decision_beyond_the_stream_is_rejected(store: Store) -> None:
    execution_id, _ = await store.start()
    result = await store.writer.submit(decision(execution_id, expected=3, decided=99))
    assert result.outcome == "rejected"


async def test_cancel_closes_commands_and_refuses_claims(store: Store) -> None:
    execution_id, (command_id,) = await store.start()
    result = await store.writer.submit(CancelExecution(execution_id, meta={"reason": "test"}))
    assert result.cancelled
    assert (await store.command(command_id))["status"] == "CANCELLED"
    with pytest.raises(HttpError) as caught:
        await store.claim(execution_id, command_id)
    assert caught.value.status == 409
    assert caught.value.detail["code"] == "execution_cancelled"  # type: ignore[index]
    again = await store.writer.submit(CancelExecution(execution_id, meta={}))
    assert not again.cancelled


async def test_a_late_result_after_cancel_is_kept_and_changes_nothing(store: Store) -> None:
    execution_id, (command_id,) = await store.start()
    await store.claim(execution_id, command_id)
    await store.writer.submit(CancelExecution(execution_id, meta={}))
    await store.report(execution_id, "call.done", "command.completed", command_id=command_id)
    row = await store.execution(execution_id)
    assert (row["status"], row["actionable_version"]) == ("CANCELLED", 0)
    assert (await store.command(command_id))["status"] == "CANCELLED"


class TestClaim:
    async def test_the_same_worker_may_ask_again_before_it_started(self, store: Store) -> None:
        execution_id, (command_id,) = await store.start()
        await store.claim(execution_id, command_id)
        assert (await store.claim(execution_id, command_id)).renewed
        claims = [row for row in await store.log(execution_id) if row["event_type"] == "command.claimed"]
        assert len(claims) == 1

    async def test_of_two_workers_one_wins(self, store: Store) -> None:
        execution_id, (command_id,) = await store.start()
        await store.claim(execution_id, command_id, worker="w1")
        with pytest.raises(HttpError) as caught:
            await store.claim(execution_id, command_id, worker="w2")
        assert caught.value.detail["code"] == "active_claim"  # type: ignore[index]
        assert caught.value.headers == {"Retry-After": "2"}

    async def test_a_worker_that_deregistered_loses_its_claim_at_once(self, store: Store) -> None:
        execution_id, (command_id,) = await store.start()
        await store.database.fetch(
            "INSERT INTO noetl.runtime (runtime_id, name, kind, status) VALUES (1, 'w1', 'worker_pool', 'offline')"
        )
        await store.claim(execution_id, command_id, worker="w1")
        assert (await store.claim(execution_id, command_id, worker="w2")).attempt == 2

    async def test_a_live_worker_keeps_a_claim_past_its_lease(self, store: Store) -> None:
        execution_id, (command_id,) = await store.start()
        await store.database.fetch(
            "INSERT INTO noetl.runtime (runtime_id, name, kind, status) VALUES (1, 'w1', 'worker_pool', 'ready')"
        )
        await store.claim(execution_id, command_id, worker="w1")
        await store.database.fetch("UPDATE noetl.command SET lease_until = now() - interval '1 s'")
        with pytest.raises(HttpError):
            await store.claim(execution_id, command_id, worker="w2")

    async def test_a_command_claimed_too_often_fails_instead_of_looping(self, store: Store) -> None:
        execution_id, (command_id,) = await store.start()
        for index in range(3):
            await store.claim(execution_id, command_id, worker=f"w{index}")
            await store.database.fetch("UPDATE noetl.command SET lease_until = now() - interval '1 s'")
        with pytest.raises(HttpError) as caught:
            await store.claim(execution_id, command_id, worker="w9")
        assert caught.value.detail["code"] == "already_terminal"  # type: ignore[index]
        row = await store.execution(execution_id)
        assert row["actionable_version"] > row["decided_version"]
        assert (await store.command(command_id))["status"] == "FAILED"


async def test_a_full_queue_refuses_at_once(store: Store) -> None:
    idle = StreamWriter(
        store.database,
        lanes=1,
        queue_max=1,
        batch_max=1,
        wire=store.writer._wire,
        next_id=store.next_id,
        on_commit=lambda _: None,
    )
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(idle.submit(CancelExecution(1, meta={})))
        await asyncio.sleep(0)
        with pytest.raises(HttpError) as caught:
            await idle.submit(CancelExecution(1, meta={}))
        waiting.cancel()
    assert caught.value.status == 503
    assert caught.value.headers == {"Retry-After": "1"}
