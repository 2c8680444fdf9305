"""Slots of a cursor loop on a real Postgres: rows are claimed by the author's statement and worked on by the tasks."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from services.worker.command import Command
from services.worker.keychain_entries import KeychainEntries
from services.worker.outcome import Outcome
from services.worker.scope import CommandScope, Shared
from services.worker.slots import Slots
from services.worker.tools import ToolBox, ToolError
from services.worker.work import run_cursor_command
from tests.integration.worker.conftest import EXECUTION, FakeApi

CLAIM = """
    UPDATE queue SET state = 'busy' WHERE id IN
      (SELECT id FROM queue WHERE state = 'new' ORDER BY id LIMIT {limit} FOR UPDATE SKIP LOCKED)
    RETURNING id, name
"""
MARK = {
    "kind": "postgres",
    "name": "mark",
    "auth": "pg",
    "query": "UPDATE queue SET state = 'done' WHERE id = {{ iter.row.id }}",
}


def slot(box: ToolBox, *tasks: dict[str, Any], limit: int = 1, index: int = 0, **more: Any) -> CommandScope:
    assert box.api is not None
    assert box.settings is not None
    cursor = {"kind": "postgres", "auth": "pg", "claim": CLAIM.format(limit=limit), "options": None}
    config = {
        "cursor": cursor,
        "iterator": "row",
        "tasks": list(tasks),
        "worker_slot_id": f"L:slot-{index}",
        "worker_slot_index": index,
        "frame_policy": {"max_rows": limit},
        **more,
    }
    command = Command(
        execution_id=EXECUTION,
        command_id=9,
        event_id=8,
        step="work:task_sequence",
        kind="cursor_worker",
        attempt=1,
        tool_config=config,
        input={},
        render_context={"execution_id": str(EXECUTION), "ctx": {}, "iter": {}, "workload": {}},
        meta={},
        deferred=[],
    )
    keychain = KeychainEntries(box.api, box.session)
    return CommandScope(command, Shared(api=box.api, box=box, settings=box.settings, slots=Slots(4), keychain=keychain))


@pytest.fixture
async def queue(database: str) -> Any:
    """A table of six rows to work on."""
    connection = await asyncpg.connect(database)
    await connection.execute("CREATE TABLE queue (id int PRIMARY KEY, name text, state text DEFAULT 'new')")
    await connection.execute("INSERT INTO queue SELECT n, 'row ' || n FROM generate_series(1, 6) n")
    yield connection
    await connection.close()


async def states(queue: Any) -> dict[str, int]:
    rows = await queue.fetch("SELECT state, count(*) AS n FROM queue GROUP BY 1")
    return {row["state"]: row["n"] for row in rows}


def result(outcome: Outcome) -> dict[str, Any]:
    return {key: value for key, value in outcome.output.items() if key not in ("duration_s", "frames")}


async def test_a_slot_works_until_no_row_is_left(box: ToolBox, queue: Any) -> None:
    outcome = await run_cursor_command(slot(box, MARK))
    assert result(outcome) == {
        "status": "ok",
        "processed": 6,
        "failed": 0,
        "breaks": 0,
        "frame_count": 6,
        "worker_slot_id": "L:slot-0",
    }
    assert await states(queue) == {"done": 6}


async def test_slots_share_the_rows(box: ToolBox, queue: Any) -> None:
    """Given two slots at once, when both drain the table, then each row is worked on once."""
    async with asyncio.TaskGroup() as group:
        slots = [group.create_task(run_cursor_command(slot(box, MARK, limit=2, index=index))) for index in (0, 1)]
    assert sum(one.result().output["processed"] for one in slots) == 6
    assert await states(queue) == {"done": 6}


async def test_rows_that_fail_are_counted_and_the_others_go_on(box: ToolBox, queue: Any) -> None:
    check = {"kind": "python", "name": "check", "input": {"id": "{{ iter.row.id }}"}, "code": "result = 6 // (id - 2)"}
    outcome = await run_cursor_command(
        slot(box, check, MARK, limit=3, frame_policy={"max_rows": 3, "row_concurrency": 3})
    )
    assert (outcome.error, result(outcome)["status"]) == (None, "partial")
    assert (outcome.output["processed"], outcome.output["failed"]) == (5, 1)
    assert outcome.output["frames"][0] == {
        "frame_index": 0,
        "row_count": 3,
        "metrics": {"rows": {"ok": 2, "failed": 1, "break": 0}},
    }
    assert await states(queue) == {"done": 5, "busy": 1}


async def test_a_break_ends_the_slot(box: ToolBox, queue: Any) -> None:
    rule = {"when": "{{ iter.row.id == 3 }}", "then": {"do": "break"}}
    task = {**MARK, "spec": {"policy": {"rules": [rule]}}}
    outcome = await run_cursor_command(slot(box, task))
    assert (outcome.output["processed"], outcome.output["breaks"]) == (3, 1)
    assert await states(queue) == {"done": 3, "new": 3}


@pytest.mark.parametrize("process", ["frame", "batch"])
async def test_a_whole_frame_at_once(box: ToolBox, queue: Any, process: str) -> None:
    mark = {
        "kind": "postgres",
        "name": "mark",
        "auth": "pg",
        "query": "UPDATE queue SET state = 'done' WHERE id IN ({{ iter.row | map(attribute='id') | join(', ') }})",
    }
    outcome = await run_cursor_command(slot(box, mark, limit=4, frame_policy={"process": process, "max_rows": 4}))
    assert (outcome.output["processed"], outcome.output["frame_count"]) == (6, 2)
    assert await states(queue) == {"done": 6}


async def test_what_a_row_sees(box: ToolBox, queue: Any) -> None:
    shown = {"name": "{{ row.name }}", "index": "{{ iter._index }}", "slot": "{{ iter._worker_slot_id }}"}
    code = "result = {'status': 'error', 'error': f'{name}|{index}|{slot}'} if index != expected else 1"
    see = {"kind": "python", "name": "see", "input": {**shown, "expected": "{{ iter.row.id - 1 }}"}, "code": code}
    outcome = await run_cursor_command(slot(box, see, limit=2))
    assert outcome.output["failed"] == 0


async def test_a_claim_that_marks_nothing_ends_at_the_limit_of_rows(box: ToolBox, queue: Any) -> None:
    scope = slot(box, {"kind": "noop", "name": "nothing"})
    cursor = {"auth": "pg", "claim": "SELECT id FROM queue ORDER BY id LIMIT 5", "options": {"max_iterations": 12}}
    scope.command.tool_config["cursor"] = cursor
    outcome = await run_cursor_command(scope)
    assert outcome.output["processed"] == 15


async def test_rows_that_cannot_be_claimed_fail_the_slot(box: ToolBox, queue: Any) -> None:
    scope = slot(box, MARK)
    scope.command.tool_config["cursor"]["claim"] = "SELECT no_such_column FROM queue"
    with pytest.raises(ToolError) as failure:
        await run_cursor_command(scope)
    assert (failure.value.code, failure.value.data["processed"]) == ("PG_42703", 0)


async def test_the_server_is_told_of_frames_when_it_has_a_stage(box: ToolBox, queue: Any, api: FakeApi) -> None:
    api.answers["POST /api/stages/77/frames/claim"] = [(200, {"status": "ok", "frames": [{"frame_id": 5}]})]
    api.answers["POST /api/frames/5/heartbeat"] = [(200, {"status": "ok"})]
    api.answers["POST /api/frames/5/commit"] = [(409, {"detail": {"code": "frame_already_terminal"}})]
    outcome = await run_cursor_command(slot(box, MARK, limit=6, stage_id=77))
    assert outcome.output["processed"] == 6
    claim = next(body for _, path, body in api.asked if path.endswith("/frames/claim"))
    assert (claim["worker_id"], claim["command_id"], claim["cursor"]["row_count"]) == ("L:slot-0", 9, 6)
    commit = next(body for _, path, body in api.asked if path.endswith("/commit"))
    assert (commit["status"], commit["row_count"]) == ("COMPLETED", 6)


async def test_frames_that_the_server_does_not_keep_change_nothing(box: ToolBox, queue: Any) -> None:
    outcome = await run_cursor_command(slot(box, MARK, limit=6, stage_id=78))
    assert (outcome.error, outcome.output["processed"]) == (None, 6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cursor": {"auth": "pg"}}, "loop.cursor.claim"),
        ({"cursor": {"kind": "kafka", "claim": "x"}}, "kafka"),
        ({"frame_policy": {"row_concurrency": "many"}}, "row_concurrency"),
        ({"tasks": []}, "tasks"),
    ],
)
async def test_a_malformed_slot(box: ToolBox, change: dict[str, Any], says: str) -> None:
    scope = slot(box, MARK)
    scope.command.tool_config.update(change)
    with pytest.raises(ToolError, match=says):
        await run_cursor_command(scope)
