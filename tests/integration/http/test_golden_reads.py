"""What the original answered to reads of its own database, and what a migrated copy of that database answers here.

Everything the original sent must be there and equal; more is allowed, also where it sent null.
Times derive from other rows and differ by milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.api.store.migrate import migrate
from tests.support.api import RunningApi, running_api
from tests.support.nats import NatsServer
from tests.support.postgres import PostgresServer, load_original_dump

READS = Path(__file__).resolve().parents[2] / "golden" / "http" / "reads"
NAMES = sorted(file.name.removesuffix(".req.json") for file in READS.glob("*.req.json"))
EPHEMERAL = {"duration_seconds", "duration_human", "start_time", "end_time", "heartbeat", "updated_at", "ctx"}
POOL = {"pool_min", "pool_max", "pool_size", "pool_available", "slots_available", "utilization"}  # of another machine

# Where the answer differs on purpose: the status expected here, and why.
DIFFERENT: dict[str, tuple[int, str]] = {
    "029_catalog_resource_bad_version": (422, "a 500 of the original"),
    "047_executions_page_far": (422, "names the place of the error, too"),
    "058_cancel_check_EID_FAILED": (200, "says RUNNING of an execution that failed"),
    "061_status_EID_STUCK": (200, "variables of an execution that never moved"),
    "064_execution_EID_INFERRED": (200, "guesses completion without a terminal event"),
    "065_status_EID_INFERRED": (200, "guesses completion without a terminal event"),
    "067_events_EID_INFERRED": (200, "guesses completion without a terminal event"),
    "070_cancel_check_EID_LOOP": (200, "says RUNNING of an execution that completed"),
    "074_cancel_check_EID_SUB": (200, "says RUNNING of an execution that completed"),
    "076_execution_EID_CHILD": (200, "guesses completion without a terminal event"),
    "077_status_EID_CHILD": (200, "guesses completion without a terminal event"),
    "079_events_EID_CHILD": (200, "guesses completion without a terminal event"),
    "086_cancel_check_EID_TASKSEQ": (200, "says RUNNING of an execution that completed"),
    "094_cancel_check_EID_LARGE_RESULT": (200, "says RUNNING of an execution that completed"),
    "109_execution_bad_id": (422, "a 500 of the original"),
    "110_execution_overflow_id": (422, "a 500 of the original"),
    "118_events_bad_id": (422, "a 500 of the original"),
    "137_vars_bad_id": (422, "another text for the same"),
    "157_keychain_bad_id": (422, "another text for the same"),
    "158_pools": (200, "a worker whose heartbeat is long ago is offline"),
}


@pytest.fixture(scope="module")
async def original(postgres_server: PostgresServer, nats_server: NatsServer) -> AsyncIterator[RunningApi]:
    """An API on the original's database, migrated in place."""
    dsn = await postgres_server.create_database("golden_reads")
    await load_original_dump(dsn)
    await migrate(dsn)
    async with running_api(dsn, nats_url=nats_server.url) as running:
        yield running
    await postgres_server.drop_database("golden_reads")


def recorded(name: str) -> tuple[int, Any]:
    head, _, body = (READS / f"{name}.resp").read_bytes().replace(b"\r\n", b"\n").partition(b"\n\n")
    try:
        answer = json.loads(body)
    except json.JSONDecodeError:
        answer = body.decode()
    return int(head.split()[1]), answer


def missing(expected: Any, found: Any, place: str = "") -> list[str]:
    """Return where `found` lacks something of `expected`."""
    if isinstance(expected, dict) and isinstance(found, dict):
        keys = [key for key in expected if key not in EPHEMERAL | POOL]
        absent = [f"{place}.{key} is absent" for key in keys if key not in found]
        return absent + [
            at for key in keys if key in found for at in missing(expected[key], found[key], f"{place}.{key}")
        ]
    if isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            return [f"{place} has {len(found)} items, not {len(expected)}"]
        return [
            at
            for index, pair in enumerate(zip(expected, found, strict=True))
            for at in missing(*pair, f"{place}[{index}]")
        ]
    return [] if expected is None or expected == found else [f"{place}: {found!r}, not {expected!r}"[:300]]


@pytest.mark.parametrize("name", NAMES)
async def test_a_read_is_answered_as_by_the_original(original: RunningApi, name: str) -> None:
    request = json.loads((READS / f"{name}.req.json").read_text())
    async with original.session.request(
        request["method"], original.url + request["path"], data=request["body"], headers=request["headers"]
    ) as response:
        status, text = response.status, await response.text()
    expected_status, expected = recorded(name)
    if name in DIFFERENT:
        assert status == DIFFERENT[name][0]
        return
    assert status == expected_status
    assert missing(expected, json.loads(text)) == []
