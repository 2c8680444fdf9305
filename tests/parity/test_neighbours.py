"""Beside the recordings: other parameters, bad values and bounds of the same routes, as the original's contract says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.api import RunningApi, running_api
from tests.support.postgres import PostgresServer

EID = "766820737834287572"
ORIGIN = "http://localhost:3000"


@pytest.fixture(scope="module")
async def playhead(postgres_server: PostgresServer, golden_template: str) -> AsyncIterator[RunningApi]:
    dsn = await postgres_server.create_database("parity_neighbours", golden_template)
    async with running_api(dsn, internal_token="", noetl_snowflake_layout="sql") as running:
        yield running
    await postgres_server.drop_database("parity_neighbours")


def parsing(kind: str, *place: str, given: object) -> dict[str, Any]:
    texts = {
        "int_parsing": "Input should be a valid integer, unable to parse string as an integer",
        "bool_parsing": "Input should be a valid boolean, unable to interpret input",
        "string_type": "Input should be a valid string",
        "dict_type": "Input should be a valid dictionary",
        "missing": "Field required",
        "model_attributes_type": "Input should be a valid dictionary or object to extract fields from",
    }
    return {"detail": [{"type": kind, "loc": list(place), "msg": texts[kind], "input": given}]}


def bound(kind: str, *place: str, given: str, limit: int) -> dict[str, Any]:
    word = {"greater_than_equal": "greater", "less_than_equal": "less"}[kind]
    key = {"greater_than_equal": "ge", "less_than_equal": "le"}[kind]
    text = f"Input should be {word} than or equal to {limit}"
    return {"detail": [{"type": kind, "loc": list(place), "msg": text, "input": given, "ctx": {key: limit}}]}


@pytest.mark.parametrize(
    ("path", "status", "answer"),
    [
        ("/", 200, {"message": "NoETL API is running (Standalone GUI available externally)"}),
        ("/api/executions?page=51&page_size=100", 200, []),
        (
            "/api/executions?page=52&page_size=100",
            422,
            {"detail": "Requested page is too deep. Max supported offset is 5000."},
        ),
        ("/api/executions?page_size=x", 422, parsing("int_parsing", "query", "page_size", given="x")),
        ("/api/executions/0", 404, {"detail": "Execution 0 not found"}),
        ("/api/executions/-5/status", 404, {"detail": "Execution not found"}),
        ("/api/executions/abc/status", 422, parsing("int_parsing", "path", "execution_id", given="abc")),
        (
            f"/api/executions/{EID}?include_events=maybe",
            422,
            parsing("bool_parsing", "query", "include_events", given="maybe"),
        ),
        (f"/api/executions/{EID}?page=0", 422, bound("greater_than_equal", "query", "page", given="0", limit=1)),
        (
            f"/api/executions/{EID}?page_size=501",
            422,
            bound("less_than_equal", "query", "page_size", given="501", limit=500),
        ),
        ("/api/commands/1.5", 422, parsing("int_parsing", "path", "event_id", given="1.5")),
        (
            "/api/credentials/pg_local?include_data=maybe",
            422,
            parsing("bool_parsing", "query", "include_data", given="maybe"),
        ),
        ("/api/credentials/1", 404, {"detail": "Credential not found"}),
        (f"/api/vars/{EID}", 200, {"execution_id": int(EID), "variables": {}, "count": 0}),
        (
            "/api/worker/pools?status=ready&runtime=python&status=zzz",
            200,
            {"items": [], "count": 0, "runtime": "python", "status": "zzz", "error": None},
        ),
    ],
)
async def test_reads_beside_the_recorded_ones(playhead: RunningApi, path: str, status: int, answer: object) -> None:
    assert await playhead.request("GET", path) == (status, answer)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "answer"),
    [
        ("POST", "/api/commands/1/claim", '{"worker_id":5}', 422, parsing("string_type", "body", "worker_id", given=5)),
        ("POST", "/api/commands/1/claim", "[]", 422, parsing("model_attributes_type", "body", given=[])),
        ("POST", "/api/commands/1/claim", "null", 422, parsing("missing", "body", given=None)),
        ("POST", "/api/commands/1/claim", "", 422, parsing("missing", "body", given=None)),
        ("POST", "/api/vars/1", '{"variables":[1]}', 422, parsing("dict_type", "body", "variables", given=[1])),
        (
            "POST",
            "/api/vars/1",
            '{"variables":{}}',
            400,
            {"detail": "Request body must contain 'variables' dict with at least one variable"},
        ),
        (
            "POST",
            "/api/events",
            f'{{"execution_id":"{EID}","step":"s","name":"x.y","payload":{{"result":{{"data":1}}}}}}',
            422,
            {"detail": "payload.result includes unsupported keys: data"},
        ),
        (
            "POST",
            "/api/events/batch",
            f'{{"execution_id":"{EID}","events":[{{"step":"s","name":"x","payload":{{"_internal_data":1}}}}]}}',
            422,
            {
                "detail": {
                    "code": "enqueue_error",
                    "message": "payload includes forbidden inline output keys: _internal_data",
                }
            },
        ),
        (
            "POST",
            "/api/executions/1/cancel",
            '{"cascade":"maybe"}',
            422,
            parsing("bool_parsing", "body", "cascade", given="maybe"),
        ),
        ("POST", "/api/execute", '{"path":"nope/x"}', 404, {"detail": "Executable catalog entry not found: nope/x"}),
        (
            "POST",
            "/api/execute",
            '{"catalog_id":"12"}',
            404,
            {"detail": "Executable catalog entry not found: catalog_id=12"},
        ),
        ("DELETE", "/api/vars/1/zz", None, 200, {"execution_id": 1, "var_name": "zz", "deleted": False}),
    ],
)
async def test_writes_beside_the_recorded_ones(
    playhead: RunningApi, method: str, path: str, body: str | None, status: int, answer: object
) -> None:
    headers = {"Content-Type": "application/json"}
    async with playhead.session.request(method, playhead.url + path, data=body, headers=headers) as response:
        assert (response.status, await response.json()) == (status, answer)


async def test_pages_below_the_first_are_the_first(playhead: RunningApi) -> None:
    first = await playhead.request("GET", "/api/executions?page=1&page_size=1")
    assert await playhead.request("GET", "/api/executions?page=-3&page_size=0") == first


async def test_every_page_of_a_log_together_is_the_log(playhead: RunningApi) -> None:
    path = f"/api/executions/{EID}/events?page_size=10&page="
    pages = [(await playhead.request("GET", f"{path}{page}"))[1] for page in (1, 2, 3, 4)]
    ids = [event["event_id"] for page in pages for event in page["events"]]
    assert len(set(ids)) == len(ids) == pages[0]["pagination"]["total_events"] == 30
    assert ids == sorted(ids, reverse=True)
    assert [page["pagination"]["has_next"] for page in pages] == [True, True, False, False]
    assert pages[3]["events"] == []


async def test_a_trailing_slash_is_redirected_with_its_query(playhead: RunningApi) -> None:
    for path, target in (("/api/executions/?page=2", "/api/executions?page=2"), ("/api/execute/", "/api/execute")):
        method = "GET" if "?" in path else "POST"
        async with playhead.session.request(method, playhead.url + path, allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (307, playhead.url + target)
    assert await playhead.request("GET", "/api/nope/") == (404, {"detail": "Not Found"})


async def test_a_page_of_a_browser_may_read(playhead: RunningApi) -> None:
    wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,x-session-token"}
    async with playhead.session.options(
        playhead.url + "/api/execute", headers={"Origin": ORIGIN, **wanted}
    ) as response:
        assert (response.status, await response.text()) == (200, "OK")
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert response.headers["Access-Control-Allow-Headers"] == wanted["Access-Control-Request-Headers"]
        assert response.headers["Access-Control-Max-Age"] == "600"
    async with playhead.session.get(
        playhead.url + "/api/health", headers={"Origin": ORIGIN, "Cookie": "a=b"}
    ) as response:
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN, "with cookies a browser wants it by name"


async def test_a_secret_in_a_refused_body_is_not_echoed(playhead: RunningApi) -> None:
    body = {"type": "postgres", "data": {"db_password": "planted-in-a-refused-body"}}
    status, answer = await playhead.request("POST", "/api/credentials", body)
    assert (status, answer["detail"][0]["loc"]) == (422, ["body", "name"])
    assert "planted" not in json.dumps(answer)


async def test_metrics_have_the_names_that_dashboards_of_the_original_read(playhead: RunningApi) -> None:
    async with playhead.session.get(playhead.url + "/metrics") as response:
        names = {line.partition(" ")[0].partition("{")[0] for line in (await response.text()).splitlines()}
    assert names >= {
        "noetl_up",
        "noetl_info",
        "noetl_process_start_time_seconds",
        "noetl_request_total",
        "noetl_batch_accepted_total",
        "noetl_batch_queue_depth",
    }
