"""What the original answered to reads of its own database, and what Playhead answers on it: byte for byte.

`services/dev/parity/masks.py` hides what cannot be equal; `services/dev/parity/differences.yaml` declares what differs on
purpose, and what is declared must differ.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.dev.parity.recordings import Recording, load_recordings
from tests.support.api import RunningApi, running_api
from tests.support.parity import DIFFERENCES, GOLDEN, answer_of, check, declared
from tests.support.postgres import PostgresServer

RECORDINGS = load_recordings(GOLDEN / "reads")


@pytest.fixture(scope="module")
async def playhead(postgres_server: PostgresServer, golden_template: str) -> AsyncIterator[RunningApi]:
    """An API on the original's database, without an internal token, as the original ran."""
    dsn = await postgres_server.create_database("parity_reads", golden_template)
    async with running_api(dsn, internal_token="", noetl_snowflake_layout="sql") as running:
        yield running
    await postgres_server.drop_database("parity_reads")


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda item: item.request.name)
async def test_a_read_is_answered_as_by_the_original(playhead: RunningApi, recording: Recording) -> None:
    name = recording.request.name
    answer = await answer_of(playhead, recording.request)
    if recording.answer is None:  # kept aside by whoever recorded it
        assert answer.status == 200
        return
    problems = check(recording.request, recording.answer, answer, declared(name, "reads"))
    assert problems == []


def test_declared_differences_name_recordings_that_exist() -> None:
    known = {item.request.name for item in RECORDINGS}
    known |= {f"writes/{item.request.name}" for item in load_recordings(GOLDEN / "writes")}
    named = {name for difference in DIFFERENCES for name in difference.recordings}
    assert named <= known
