"""The original and Playhead on one database, behind one ingress: docs/cutover.md, as tests."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.api.identity import IdSource, lease_ids
from services.dev.parity.recordings import load_recordings
from shared.wire.ids import SnowflakeLayout
from tests.support.api import RunningApi, running_api
from tests.support.original import Ingress, OriginalDatabase, RecordedOriginal, original_database, serving
from tests.support.parity import GOLDEN, answer_of, check, declared
from tests.support.postgres import PostgresServer

RECORDINGS = [item for item in load_recordings(GOLDEN / "reads") if item.answer is not None]
PATH = "golden/x_linear2"
OWN = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: side, path: tests/side_by_side}
workflow:
- step: start
  tool: {kind: python, input: {}, code: "result = {}"}
"""


@dataclass(frozen=True, slots=True)
class Both:
    """The two servers, the ingress in front of them, and a connection of the original to their database."""

    playhead: RunningApi
    original: RecordedOriginal
    original_url: str
    ingress: Ingress
    through: RunningApi
    database: OriginalDatabase
    dsn: str


@pytest.fixture(scope="module")
async def both(postgres_server: PostgresServer, golden_template: str) -> AsyncIterator[Both]:
    dsn = await postgres_server.create_database("parity_side_by_side", golden_template)
    recorded = RecordedOriginal(RECORDINGS)
    async with (
        running_api(dsn, internal_token="", noetl_snowflake_layout="sql") as api,
        serving(recorded.app()) as original_url,
        original_database(dsn) as connection,
    ):
        ingress = Ingress(api.session, default=original_url)
        async with serving(ingress.app()) as url:
            through = RunningApi(url, api.session, api.client)
            yield Both(api, recorded, original_url, ingress, through, connection, dsn)
    await postgres_server.drop_database("parity_side_by_side")


async def test_readers_do_not_notice_which_server_a_route_goes_to(both: Both) -> None:
    groups = [r"/api/executions.*", r"/api/catalog/(list|resource)", r"/api/credentials.*", r"/api/vars/.*"]
    recordings = [
        item
        for item in RECORDINGS
        if item.answer is not None
        and "content-type" in item.answer.headers  # the server of the stub adds one
        and both.ingress.backend(item.request.method, item.request.path) == both.original_url
        and item.request.path.startswith(
            ("/api/executions", "/api/catalog/list", "/api/catalog/res", "/api/cred", "/api/vars")
        )
    ]
    assert len(recordings) > 40
    for step, group in enumerate(["", *groups]):  # route group by route group, as a cut-over goes
        if group:
            both.ingress.send("*", group, both.playhead.url)
        asked = len(both.original.asked)
        for item in recordings:
            assert item.answer is not None
            answer = await answer_of(both.through, item.request)
            here = both.ingress.backend(item.request.method, item.request.path.partition("?")[0]) == both.playhead.url
            differences = declared(item.request.name, "reads") if here else []
            assert check(item.request, item.answer, answer, differences) == [], (step, item.request.name)
        left = len(both.original.asked) - asked
        assert (left == 0) == (step == len(groups)), "the original is asked until the last group has moved"


async def test_a_run_of_the_original_is_visible_and_can_be_cancelled(both: Both) -> None:
    execution, _ = await both.database.start(PATH)
    status, document = await both.playhead.request("GET", f"/api/executions/{execution}")
    assert (status, document["status"], document["path"]) == (200, "RUNNING", PATH)
    assert [item["event_type"] for item in document["events"]] == [
        "command.issued",
        "workflow.initialized",
        "playbook.initialized",
    ]
    _, listed = await both.playhead.request("GET", "/api/executions?page_size=5")
    assert str(execution) in [item["execution_id"] for item in listed]

    _, answer = await both.playhead.request("POST", f"/api/executions/{execution}/cancel", {"reason": "cut-over"})
    assert answer["status"] == "cancelled"
    _, check_answer = await both.playhead.request("GET", f"/api/executions/{execution}/cancellation-check")
    assert check_answer["cancelled"] is True
    newest = (
        await both.database.rows(
            "SELECT event_type, node_name, status, catalog_id, meta FROM noetl.event WHERE execution_id = $1"
            " ORDER BY event_id DESC LIMIT 1",
            execution,
        )
    )[0]
    assert (newest["event_type"], newest["node_name"], newest["status"]) == (
        "execution.cancelled",
        "cancel",
        "CANCELLED",
    )
    assert json.loads(newest["meta"])["reason"] == "cut-over"
    commands = await both.database.rows("SELECT status FROM noetl.command WHERE execution_id = $1", execution)
    assert [row["status"] for row in commands] == ["CANCELLED"]


async def test_a_run_that_the_original_ends_shows_its_end(both: Both) -> None:
    execution, _ = await both.database.start(PATH)
    await both.database.event(execution, "playbook.completed", PATH, "completed")
    _, status = await both.playhead.request("GET", f"/api/executions/{execution}/status")
    assert (status["status"], status["completed"], status["completion_inferred"]) == ("COMPLETED", True, False)
    _, answer = await both.playhead.request("POST", f"/api/executions/{execution}/cancel", {})
    assert answer["status"] == "already_completed"


async def test_a_clean_up_leaves_runs_that_ended_without_a_word(both: Both) -> None:
    _, answer = await both.playhead.request(
        "POST", "/api/executions/cleanup", {"older_than_minutes": 5, "dry_run": True}
    )
    assert "766817070846575029" in answer["execution_ids"], "its log stopped at the beginning"
    assert "766817946675970220" not in answer["execution_ids"], "its log shows an end"
    for execution in answer["execution_ids"][:5]:
        _, status = await both.playhead.request("GET", f"/api/executions/{execution}/status")
        assert status["status"] == "RUNNING"


async def test_the_event_stream_of_an_ended_run_of_the_original_closes(both: Both) -> None:
    url = f"{both.playhead.url}/api/executions/766817946675970220/events/stream"
    async with both.playhead.session.get(url) as response:
        assert response.status == 200
        assert "event: end" in await response.text()


async def test_between_two_steps_a_run_of_the_original_is_not_over(both: Both) -> None:
    execution, _ = await both.database.start(PATH)
    await both.database.connection.execute(
        "UPDATE noetl.command SET status = 'COMPLETED' WHERE execution_id = $1", execution
    )
    await both.database.event(execution, "batch.completed", "events.batch", "COMPLETED")
    _, status = await both.playhead.request("GET", f"/api/executions/{execution}/status")
    assert (status["status"], status["completed"]) == ("RUNNING", False)


async def _counts(both: Both, execution: int) -> tuple[int, int]:
    events = await both.database.value("SELECT count(*) FROM noetl.event WHERE execution_id = $1", execution)
    outbox = await both.database.value("SELECT count(*) FROM noetl.outbox WHERE execution_id = $1", execution)
    return int(events), int(outbox)


async def test_a_report_that_belongs_to_the_original_is_sent_back_whole(both: Both) -> None:
    execution, issued = await both.database.start(PATH)
    before = await _counts(both, execution)
    event = {"step": "start", "name": "call.done", "payload": {"response": {"n": 1}}}
    requests: list[tuple[str, dict[str, Any]]] = [
        ("/api/events", {"execution_id": str(execution), **event}),
        ("/api/events/batch", {"execution_id": str(execution), "events": [event]}),
        (f"/api/commands/{issued}/claim", {"worker_id": "w1"}),
    ]
    for path, body in requests:
        async with both.playhead.session.post(both.playhead.url + path, json=body) as response:
            assert response.status == 503, path
            assert int(response.headers["Retry-After"]) > 0
            assert (await response.json())["detail"]["code"] == "run_by_original"
    assert await _counts(both, execution) == before
    command = await both.database.rows("SELECT status, worker_id FROM noetl.command WHERE execution_id = $1", execution)
    assert [(row["status"], row["worker_id"]) for row in command] == [("PENDING", None)]


async def test_a_late_report_of_an_ended_run_is_kept_and_asks_for_nothing(both: Both) -> None:
    execution, _ = await both.database.start(PATH)
    await both.database.event(execution, "playbook.failed", PATH, "failed")
    events, outbox = await _counts(both, execution)
    body = {"execution_id": str(execution), "step": "start", "name": "call.done", "payload": {"response": {"n": 1}}}
    status, answer = await both.playhead.request("POST", "/api/events", body)
    assert (status, answer["status"]) == (200, "ok")
    assert await _counts(both, execution) == (events + 1, outbox)
    row = (
        await both.database.rows(
            "SELECT actionable_version, decided_version FROM noetl.execution WHERE execution_id = $1", execution
        )
    )[0]
    assert row["actionable_version"] == row["decided_version"] == 0
    _, shown = await both.playhead.request("GET", f"/api/executions/{execution}/status")
    assert shown["status"] == "FAILED"


async def test_the_reconciler_leaves_the_originals_runs_alone(
    postgres_server: PostgresServer, golden_template: str
) -> None:
    dsn = await postgres_server.create_database("parity_reconcile", golden_template)
    settings = {"noetl_command_reaper_pending_retry_seconds": 0.001, "noetl_reconcile_undecided_seconds": 0.001}
    async with running_api(dsn, noetl_snowflake_layout="sql", **settings) as api, original_database(dsn) as database:
        execution, _ = await database.start(PATH)
        found = await api.client.reconcile(100)
        assert (found["undecided"], found["notified"], found["reclaimed"]) == ([], 0, 0)
        assert await database.value("SELECT count(*) FROM noetl.outbox WHERE execution_id = $1", execution) == 0
        answer = await api.client.load({execution: 0})
        assert answer["executions"][0]["events"] == []
    await postgres_server.drop_database("parity_reconcile")


async def test_the_original_cannot_write_into_a_run_of_playhead(both: Both) -> None:
    execution = await both.playhead.start(OWN)
    with pytest.raises(asyncpg.PostgresError, match="is run by Playhead"):
        await both.database.event(execution, "execution.cancelled", "cancel", "CANCELLED")
    _, status = await both.playhead.request("GET", f"/api/executions/{execution}/status")
    assert status["status"] == "RUNNING"
    other, _ = await both.database.start(PATH)
    await both.database.event(other, "execution.cancelled", "cancel", "CANCELLED")  # into its own it can


async def test_what_playhead_writes_has_the_words_that_the_original_knows(both: Both) -> None:
    execution = await both.playhead.start(OWN)
    await both.playhead.request("POST", "/api/worker/pool/register", {"name": "side", "runtime": "python"})
    row = (
        await both.database.rows(
            "SELECT e.status, e.state ->> 'execution_id' AS id, c.status AS command, c.event_id, c.attempt, c.context"
            "  FROM noetl.execution e JOIN noetl.command c USING (execution_id) WHERE e.execution_id = $1",
            execution,
        )
    )[0]
    assert (row["status"], row["command"], row["attempt"]) == ("RUNNING", "PENDING", 1)
    assert {"tool_config", "input", "render_context"} <= set(json.loads(row["context"]))
    types = await both.database.rows(
        "SELECT event_type, status FROM noetl.event WHERE execution_id = $1 ORDER BY event_id", execution
    )
    assert [(item["event_type"], item["status"]) for item in types] == [
        ("playbook.initialized", "initialized"),
        ("workflow.initialized", "initialized"),
        ("command.issued", "PENDING"),
    ]
    pool = (await both.database.rows("SELECT kind, status, runtime FROM noetl.runtime WHERE name = 'side'"))[0]
    assert (pool["kind"], pool["status"], json.loads(pool["runtime"])["type"]) == ("worker_pool", "ready", "python")


@pytest.fixture
async def ids(both: Both) -> AsyncIterator[IdSource]:
    source = await lease_ids(both.dsn, node_id=-1, layout=SnowflakeLayout.SQL)
    yield source
    await source.close()


async def test_ids_of_both_servers_never_meet_and_keep_their_order(both: Both, ids: IdSource) -> None:
    theirs: list[int] = []
    ours: list[int] = []
    for _ in range(20):
        ours += [ids.next() for _ in range(500)]
        rows = await both.database.rows("SELECT noetl.snowflake_id() AS id FROM generate_series(1, 500)")
        theirs += [row["id"] for row in rows]
    assert len(set(ours)) == 10_000
    assert not set(ours) & set(theirs)
    for step in range(20):  # what was minted later is larger, whoever minted it
        mine, next_theirs = ours[step * 500], theirs[step * 500 + 499]
        assert mine >> 23 <= next_theirs >> 23, "to the millisecond"


async def test_node_one_of_the_sql_layout_is_the_originals(both: Both) -> None:
    with pytest.raises(RuntimeError, match="node 1"):
        await lease_ids(both.dsn, node_id=1, layout=SnowflakeLayout.SQL)


async def test_runs_of_either_server_and_layout_find_their_partition(both: Both, ids: IdSource) -> None:
    app = await lease_ids(both.dsn, node_id=7, layout=SnowflakeLayout.APP)
    own = await both.playhead.start(OWN)
    other, _ = await both.database.start(PATH)
    tables = [
        await both.database.value(
            "SELECT tableoid::regclass::text FROM noetl.event WHERE execution_id = $1 LIMIT 1", execution
        )
        for execution in (own, other)
    ]
    assert tables[0] == tables[1], "runs of one moment lie in one partition, whoever started them"
    entry = await both.database.value("SELECT catalog_id FROM noetl.execution WHERE execution_id = $1", own)
    for execution in (ids.next(), app.next(), 766820737834287572, 383392829684056064):
        table = await both.database.value(
            "INSERT INTO noetl.event (execution_id, catalog_id, event_id, event_type)"
            " VALUES ($1, $2, noetl.snowflake_id(), 'x') RETURNING tableoid::regclass::text",
            execution,
            entry,
        )
        assert "default" not in table


def _gcm(key: bytes, plaintext: bytes) -> bytes:
    nonce = os.urandom(12)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, None)


def _stored_forms(secret: dict[str, str]) -> dict[str, str]:
    """Return the forms in which servers of the original store `secret`, with the key that the tests configure."""
    plaintext, key = json.dumps(secret).encode(), b"k" * 32
    data_key = os.urandom(32)
    envelope = {
        "v": 1,
        "alg": "AES-256-GCM",
        "ct": base64.b64encode(_gcm(data_key, plaintext)).decode(),
        "dek": {
            "p": "local",
            "kid": "env:NOETL_ENCRYPTION_KEY",
            "kv": "v1",
            "ct": base64.b64encode(_gcm(key, data_key)).decode(),
        },
    }
    return {
        "plain": plaintext.decode(),
        "gcm": base64.b64encode(_gcm(key, plaintext)).decode(),
        "envelope": json.dumps(envelope),
    }


@pytest.mark.parametrize("form", ["plain", "gcm", "envelope"])
async def test_credentials_are_read_in_every_form_of_the_original_and_written_in_ours(both: Both, form: str) -> None:
    secret = {"db_password": f"planted-{form}"}
    await both.database.connection.execute(
        "INSERT INTO noetl.credential (name, type, data_encrypted) VALUES ($1, 'postgres', $2)",
        f"side_{form}",
        _stored_forms(secret)[form],
    )
    status, answer = await both.playhead.request("GET", f"/api/credentials/side_{form}?include_data=true")
    assert (status, answer["data"]) == (200, secret)
    body = {"name": f"side_{form}", "type": "postgres", "data": secret}
    assert (await both.playhead.request("POST", "/api/credentials", body))[0] == 200
    stored = await both.database.value("SELECT data_encrypted FROM noetl.credential WHERE name = $1", f"side_{form}")
    assert secret["db_password"] not in stored
    _, again = await both.playhead.request("GET", f"/api/credentials/side_{form}?include_data=true")
    assert again["data"] == secret
