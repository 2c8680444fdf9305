"""Frames of cursor loops: leases by the database's clock, fencing, and no frame for two workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.e2e.playbooks import LINEAR
from tests.support.api import RunningApi

STAGE = 770010927
CURSOR = """apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: cursor, path: tests/cursor}
workflow:
  - step: drain
    loop:
      cursor: {kind: postgres, auth: pg, claim: SELECT 1}
      iterator: row
      spec: {mode: cursor, max_in_flight: 2, frame: {max_rows: 5}}
    tool: [{name: work, kind: noop}]
"""


class Loop:
    """An execution with an open stage, as the engine opens one for a cursor loop."""

    def __init__(self, api: RunningApi, execution: int, connection: asyncpg.Connection[Any]) -> None:
        self.api, self.execution, self.connection = api, execution, connection

    async def claim(self, worker: str, slot: int | None = None, **body: Any) -> tuple[int, Any]:
        """Ask for frames of the stage."""
        if slot is not None:
            body["cursor"] = {"worker_slot_id": f"slot-{slot}", "frame_index": body.pop("index", 0)}
        return await self.api.request("POST", f"/api/stages/{STAGE}/frames/claim", {"worker_id": worker, **body})

    async def expire(self) -> None:
        """Let every lease end."""
        await self.connection.execute("UPDATE noetl.frame SET lease_until = now() - interval '1 second'")

    async def events(self) -> list[str]:
        """Return the types of the events of frames, in order."""
        rows = await self.connection.fetch(
            "SELECT event_type FROM noetl.event WHERE execution_id = $1 AND aggregate_type = 'frame' ORDER BY event_id",
            self.execution,
        )
        return [row["event_type"].removeprefix("frame.") for row in rows]


@pytest.fixture
async def loop(api: RunningApi, database_dsn: str) -> AsyncIterator[Loop]:
    execution = await api.start(LINEAR)
    connection = await asyncpg.connect(database_dsn)
    await connection.execute(
        "INSERT INTO noetl.stage (stage_id, execution_id, kind, step_name, dsl_ref) VALUES ($1, $2, 'loop', 'work', 'work')",
        STAGE,
        execution,
    )
    yield Loop(api, execution, connection)
    await connection.close()


async def test_a_frame_lives_from_claim_to_commit(loop: Loop) -> None:
    status, answer = await loop.claim("w1", 0, command_id=123, lease_seconds=120)
    assert (status, answer["status"]) == (200, "ok")
    (frame,) = answer["frames"]
    assert (frame["status"], frame["owner_worker"], frame["command_id"]) == ("CLAIMED", "w1", 123)
    assert (frame["stage_id"], frame["execution_id"], frame["row_count"]) == (
        STAGE,
        loop.execution,
        0,
    )
    path = f"/api/frames/{frame['frame_id']}"
    for _ in range(2):
        status, beat = await loop.api.request("POST", f"{path}/heartbeat", {"worker_id": "w1"})
        assert (status, beat["frame"]["status"]) == (200, "RUNNING")
    done = {"worker_id": "w1", "row_count": 5, "events_emitted": 2, "output_ref": {"ref": "noetl://x"}}
    status, ended = await loop.api.request("POST", f"{path}/commit", done)
    assert (status, ended["frame"]["status"], ended["frame"]["row_count"]) == (200, "COMPLETED", 5)
    assert ended["frame"]["terminal_event_id"] == ended["frame"]["event_id"]
    assert await loop.events() == ["dispatched", "started", "heartbeat", "committed"]
    status, again = await loop.api.request("POST", f"{path}/commit", done)
    assert (status, again["detail"]["code"]) == (409, "frame_already_terminal")


async def test_a_claim_repeated_by_its_worker_renews_and_by_another_is_refused(loop: Loop) -> None:
    _, first = await loop.claim("w1", 0, command_id=1)
    _, again = await loop.claim("w1", 0, command_id=1)
    assert again["frames"][0]["frame_id"] == first["frames"][0]["frame_id"]
    status, refused = await loop.claim("w2", 0, command_id=1)
    assert (status, refused["detail"]) == (
        409,
        {"code": "frame_claim_conflict", "stage_id": STAGE, "claim_key": "slot-0:0"},
    )
    assert await loop.events() == ["dispatched"]


async def test_who_lost_the_lease_to_another_is_refused(loop: Loop) -> None:
    _, first = await loop.claim("w1", 0)
    frame = first["frames"][0]
    await loop.expire()
    _, second = await loop.claim("w2", 0)
    assert second["frames"][0]["frame_id"] == frame["frame_id"]
    path = f"/api/frames/{frame['frame_id']}"
    for action in ("heartbeat", "commit"):
        status, refused = await loop.api.request("POST", f"{path}/{action}", {"worker_id": "w1"})
        assert (status, refused["detail"]["code"]) == (409, "frame_owner_mismatch")
    assert (await loop.api.request("POST", f"{path}/commit", {"worker_id": "w2"}))[0] == 200
    assert await loop.events() == ["dispatched", "abandoned", "dispatched", "committed"]


async def test_the_token_of_the_claim_fences_a_worker_of_the_same_name(loop: Loop) -> None:
    _, first = await loop.claim("slot", 0)
    await loop.expire()
    _, second = await loop.claim("slot", 0)
    path = f"/api/frames/{first['frames'][0]['frame_id']}/commit"
    old, new = (answer["frames"][0]["claimed_event_id"] for answer in (first, second))
    assert old != new
    status, refused = await loop.api.request("POST", path, {"worker_id": "slot", "claimed_event_id": old})
    assert (status, refused["detail"]["code"]) == (409, "frame_owner_mismatch")
    assert (await loop.api.request("POST", path, {"worker_id": "slot", "claimed_event_id": new}))[0] == 200


async def test_many_frames_of_one_claim_differ_and_free_ones_go_first(loop: Loop) -> None:
    _, answer = await loop.claim("w1", requested_count=3)
    ids = [frame["frame_id"] for frame in answer["frames"]]
    assert len(set(ids)) == 3
    await loop.expire()
    _, answer = await loop.claim("w2", requested_count=4)
    assert [frame["frame_id"] for frame in answer["frames"]][:3] == ids


async def test_workers_that_claim_at_once_never_get_the_same_frame(loop: Loop) -> None:
    await loop.claim("w0", requested_count=4)
    await loop.expire()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(loop.claim(f"w{n}", requested_count=2)) for n in range(4)]
    ids = [frame["frame_id"] for task in tasks for frame in task.result()[1]["frames"]]
    assert len(ids) == len(set(ids)) == 8


async def test_a_closed_stage_and_an_ended_execution_give_no_frames(loop: Loop) -> None:
    assert (await loop.api.request("POST", "/api/stages/1/frames/claim", {"worker_id": "w"})) == (
        404,
        {"detail": "stage not found: 1"},
    )
    await loop.connection.execute("UPDATE noetl.stage SET status = 'CLOSED'")
    assert (await loop.claim("w"))[1]["detail"] == {"code": "stage_not_open", "status": "CLOSED"}
    await loop.connection.execute("UPDATE noetl.stage SET status = 'OPEN'")
    await loop.api.request("POST", f"/api/executions/{loop.execution}/cancel")
    assert (await loop.claim("w"))[1]["detail"] == {"code": "stage_not_open", "status": "CANCELLED"}


async def test_a_failed_frame_keeps_its_error_and_shared_memory_alone_is_no_output(loop: Loop) -> None:
    _, answer = await loop.claim("w1")
    path = f"/api/frames/{answer['frames'][0]['frame_id']}/commit"
    status, refused = await loop.api.request("POST", path, {"worker_id": "w1", "output_ref": {"ipc": {"shm": "x"}}})
    assert (status, refused["detail"][0]["loc"]) == (422, ["body", "output_ref"])
    body = {"worker_id": "w1", "status": "FAILED", "error": "boom"}
    assert (await loop.api.request("POST", path, body))[1]["frame"]["status"] == "FAILED"
    _, state = await loop.api.request("GET", f"/api/replay/state?execution_id={loop.execution}")
    assert next(iter(state["frames"].values()))["status"] == "FAILED"


async def test_the_slots_of_a_cursor_loop_share_a_stage_that_closes_with_the_execution(api: RunningApi) -> None:
    execution = await api.start(CURSOR)
    issued = [item for item in await api.log(execution) if item["event_type"] == "command.issued"]
    async with asyncio.TaskGroup() as group:
        paths = [f"/api/commands/{item['event_id']}/claim" for item in issued]
        tasks = [group.create_task(api.request("POST", path, {"worker_id": "w"})) for path in paths]
    configs = [task.result()[1]["context"]["tool_config"] for task in tasks]
    assert len(configs) == 2
    (stage,) = {config["stage_id"] for config in configs}
    for config in configs:
        cursor = {"worker_slot_id": config["worker_slot_id"], "frame_index": 0}
        body = {"worker_id": config["worker_slot_id"], "cursor": cursor}
        _, answer = await api.request("POST", f"/api/stages/{stage}/frames/claim", body)
        path = f"/api/frames/{answer['frames'][0]['frame_id']}/commit"
        body = {"worker_id": config["worker_slot_id"], "row_count": 3, "cursor": cursor}
        assert (await api.request("POST", path, body))[0] == 200
    await api.request("POST", f"/api/executions/{execution}/cancel")
    await api.client.reconcile(10)
    _, state = await api.request("GET", f"/api/replay/state?execution_id={execution}")
    found = state["stages"][str(stage)]
    assert (found["status"], found["step_name"], found["frame_count"], found["row_count"]) == (
        "CANCELLED",
        "drain",
        2,
        6,
    )
    assert len(state["frames"]) == 2
    status, refused = await api.request("POST", f"/api/stages/{stage}/frames/claim", {"worker_id": "w"})
    assert (status, refused["detail"]["code"]) == (409, "stage_not_open")
