"""SQL by request: what is answered, what is refused, what cannot be done with it."""

from __future__ import annotations

import asyncio
import base64
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.support.api import RunningApi, running_api

PATH = "/api/postgres/execute"


@pytest.fixture
def api(shared_api: RunningApi) -> RunningApi:
    """One API for all of these tests."""
    return shared_api


async def run(api: RunningApi, query: str, **more: Any) -> dict[str, Any]:
    status, answer = await api.request("POST", PATH, {"query": query, **more})
    assert status == 200, answer
    return dict(answer)


async def test_rows_are_objects_in_the_forms_of_the_original(api: RunningApi) -> None:
    query = (
        "SELECT 1 AS one, 'a' AS a, null AS n, true AS t, 1.5::numeric AS d, '2026-01-01T00:00:00Z'::timestamptz AS ts, "
        "'{\"k\":1}'::jsonb AS j, ARRAY[1,2] AS arr, '\\x00ff'::bytea AS b, 'NaN'::float8 AS x, date '2026-01-02' AS dt, "
        "'00000000-0000-0000-0000-000000000001'::uuid AS u, int4range(1, 5) AS r, ROW(1, 'b') AS c"
    )
    answer = await run(api, query)
    assert (answer["status"], answer["error"]) == ("ok", None)
    row = answer["result"][0]
    assert row["arr"] == [1, 2]
    assert (row["d"], row["ts"], row["j"]) == ("1.5", "2026-01-01T00:00:00Z", {"k": 1})
    assert (row["b"], row["x"], row["dt"]) == ("\\x00ff", "nan", "2026-01-02")
    assert row["u"] == "00000000-0000-0000-0000-000000000001"


async def test_what_the_database_refuses_is_an_error_with_its_place(api: RunningApi) -> None:
    assert await run(api, "SELEC") == {
        "status": "error",
        "result": None,
        "error": 'syntax error at or near "SELEC"\nLINE 1: SELEC\n        ^',
    }
    answer = await run(api, "SELECT\n  nope FROM noetl.resource")
    assert answer["error"].startswith('column "nope" does not exist\nLINE 2:   nope FROM noetl.resource\n          ^')
    assert (await api.request("POST", PATH, {"procedure": "nope"}))[1]["error"].startswith("syntax error at or near")


async def test_a_schema_a_base64_query_and_parameters_are_taken(api: RunningApi) -> None:
    answer = await run(api, "SELECT name FROM resource WHERE name = %s", schema="noetl", parameters=["playbook"])
    assert answer["result"] == [{"name": "playbook"}]
    answer = await run(api, "SELECT %(a)s::int + 1 AS n, %(b)s::text AS t", parameters={"a": "4", "b": 5})
    assert answer["result"] == [{"n": 5, "t": "5"}]
    encoded = base64.b64encode(b"SELECT 7 AS n").decode()
    assert (await api.request("POST", PATH, {"query_base64": encoded}))[1]["result"] == [{"n": 7}]


async def test_a_statement_reads_unless_writing_is_asked_for(api: RunningApi) -> None:
    for query in (
        "CREATE TABLE public.made (n int)",
        "DELETE FROM noetl.resource",
        "WITH gone AS (DELETE FROM noetl.resource RETURNING 1) SELECT * FROM gone",
        "DO $$ BEGIN SET LOCAL transaction_read_only = off; CREATE TABLE public.made (n int); END $$",
        "SELECT 1; DROP TABLE noetl.resource",
        "COMMIT; CREATE TABLE public.made (n int)",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "/* x */ -- y\n copy (SELECT 1) TO '/tmp/x'",
        "SET TRANSACTION READ WRITE",
        "SELECT set_config('transaction_read_only', 'off', true)",
        "SELECT nextval('noetl.dead_letter_dead_letter_id_seq')",
    ):
        assert (await run(api, query))["status"] == "error", query
    assert (await run(api, "DELETE FROM noetl.resource"))["error"] == (
        "cannot execute DELETE in a read-only transaction\n"
        'HINT:  send "allow_write": true; for clients that cannot, NOETL_SQL_WRITE=always'
    )
    assert (await run(api, "SELECT to_regclass('public.made')::text AS found"))["result"] == [{"found": None}]
    answer = await run(api, "CREATE TABLE public.made (n int)", allow_write=True)
    assert (answer["status"], answer["result"]) == ("ok", None)
    answer = await run(api, "INSERT INTO public.made VALUES (1), (2) RETURNING n", allow_write=True)
    assert answer["result"] == [{"n": 1}, {"n": 2}]
    assert (await run(api, "SELECT count(*) FROM public.made"))["result"] == [{"count": 2}]


async def test_the_settings_forbid_or_allow_writing_and_bound_time_and_rows(database_dsn: str) -> None:
    limits = {"noetl_sql_timeout_seconds": 0.2, "noetl_sql_rows_max": 3}
    async with running_api(database_dsn, noetl_sql_write="never", **limits) as api:
        status, answer = await api.request("POST", PATH, {"query": "SELECT 1", "allow_write": True})
        assert (status, answer["detail"]) == (400, "allow_write: NOETL_SQL_WRITE=never on this server")
        answer = await run(api, "SELECT pg_sleep(10)")
        assert answer["error"] == "canceling statement due to statement timeout"
        query = "SELECT generate_series(1, 1000) AS n"
        async with api.session.post(api.url + PATH, json={"query": query}) as response:
            assert response.headers["X-Playhead-More"] == "true"
            assert (await response.json())["result"] == [{"n": 1}, {"n": 2}, {"n": 3}]
    async with running_api(database_dsn, noetl_sql_write="always") as api:
        assert (await run(api, "CREATE TABLE public.made (n int)"))["status"] == "ok"


async def test_an_answer_is_bounded_in_bytes(api: RunningApi) -> None:
    answer = await run(api, "SELECT repeat('x', 1000000) AS t FROM generate_series(1, 100)")
    assert answer["error"].startswith("the result is over 16777216 bytes")


async def test_no_setting_of_one_call_is_seen_by_another(api: RunningApi) -> None:
    await run(api, "SELECT set_config('search_path', 'pg_catalog', false)", allow_write=True)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(api, "SHOW search_path")) for _ in range(4)]
    assert all(task.result()["result"] != [{"search_path": "pg_catalog"}] for task in tasks)


@pytest.mark.parametrize(
    ("body", "expected", "said"),
    [
        ({}, 400, "query or procedure is required"),
        ({"query": "  "}, 400, "query or procedure is required"),
        ({"query": 5}, 422, "query"),
        ({"query_base64": "§"}, 422, "query_base64"),
        ({"query": "SELECT %s", "parameters": []}, 422, "placeholder number 1"),
        ({"query": "SELECT %s::int", "parameters": ["x"]}, 422, "no int4"),
        ({"query": "SELECT 1", "connection_string": "http://x"}, 422, "postgresql://"),
        ({"query": "SELECT 1", "credential": "nobody"}, 404, "Credential not found"),
    ],
)
async def test_a_wrong_request_is_named(api: RunningApi, body: dict[str, Any], expected: int, said: str) -> None:
    status, answer = await api.request("POST", PATH, body)
    assert status == expected
    assert said in str(answer["detail"])


@pytest.fixture
async def users(api: RunningApi) -> str:
    """Name of a credential of a database that has the gateway's schema `auth`."""
    connection = await asyncpg.connect(api.dsn)
    await connection.execute(
        "CREATE SCHEMA IF NOT EXISTS auth; DROP TABLE IF EXISTS auth.sessions, auth.user_roles, auth.users, auth.roles,"
        " auth.playbook_permissions;"
        "CREATE TABLE auth.playbook_permissions (role_id int, playbook_path varchar(500), allow_pattern varchar(500),"
        " deny_pattern varchar(500), can_execute bool, can_view bool, can_modify bool);"
        "INSERT INTO auth.playbook_permissions VALUES (1, 'a/b', null, null, true, true, false),"
        " (2, 'former/x', null, null, true, true, true), (3, null, 'tools/%', 'tools/secret%', true, null, null);"
        "CREATE TABLE auth.users (user_id serial PRIMARY KEY, email varchar(255), display_name varchar(255), is_active bool);"
        "CREATE TABLE auth.roles (role_id serial PRIMARY KEY, role_name varchar(100));"
        "CREATE TABLE auth.user_roles (user_id int, role_id int, expires_at timestamp);"
        "CREATE TABLE auth.sessions (user_id int, session_token varchar(255), is_active bool, expires_at timestamp);"
        "INSERT INTO auth.users VALUES (1, 'ada@example.org', 'Ada', true);"
        "INSERT INTO auth.roles VALUES (1, 'editor'), (2, 'former'), (3, 'admin');"
        "INSERT INTO auth.user_roles VALUES (1, 1, null), (1, 2, now() - interval '1 day'), (1, 3, null);"
        "INSERT INTO auth.sessions VALUES (1, 'good', true, '2100-01-01'), (1, 'old', true, '2000-01-01'),"
        " (1, 'out', false, '2100-01-01')"
    )
    await connection.close()
    parts = urlsplit(api.dsn)
    data = {
        "db_host": parts.hostname,
        "db_port": parts.port,
        "db_user": parts.username,
        "db_password": parts.password or "x",
        "db_name": parts.path[1:],
    }
    for name, given in (("users_db", data), ("half", {"db_host": "x"})):
        body = {"name": name, "type": "postgres", "data": given}
        assert (await api.request("POST", "/api/credentials", body))[0] == 200
    return "users_db"


async def test_a_session_is_validated_in_the_users_database(api: RunningApi, users: str) -> None:
    path = "/api/auth/session/validate"
    status, answer = await api.request("POST", path, {"session_token": " good ", "credential": users})
    assert (status, answer) == (
        200,
        {
            "status": "ok",
            "valid": True,
            "user": {"user_id": 1, "email": "ada@example.org", "display_name": "Ada", "roles": ["admin", "editor"]},
            "expires_at": "2100-01-01T00:00:00",
            "error": None,
        },
    )
    for token in ("old", "out", "none", "' OR true --"):
        _, answer = await api.request("POST", path, {"session_token": token, "credential": users})
        assert (answer["status"], answer["valid"], answer["user"]) == ("ok", False, None)
    for body, expected in (
        ({}, 422),
        ({"session_token": "  "}, 422),
        ({"session_token": "x", "credential": "nobody"}, 404),
        ({"session_token": "x", "credential": "half"}, 400),
    ):
        assert (await api.request("POST", path, body))[0] == expected


async def test_access_to_a_playbook_follows_the_roles_of_the_session(api: RunningApi, users: str) -> None:
    path = "/api/auth/check-playbook-access"

    async def ask(**body: Any) -> dict[str, Any]:
        status, answer = await api.request("POST", path, {"session_token": "good", "credential": users, **body})
        assert (status, answer["status"]) == (200, "success")
        return dict(answer["data"])

    for playbook, action, allowed in (
        ("a/b", "execute", True),
        ("a/b", "view", True),
        ("a/b", "modify", False),
        ("tools/x", "execute", True),
        ("tools/x", "view", False),
        ("tools/secret/x", "execute", False),
        ("former/x", "execute", False),
        ("else", "execute", False),
    ):
        answer = await ask(playbook_path=playbook, action=action)
        assert (answer["allowed"], answer["user"]["email"]) == (allowed, "ada@example.org"), (playbook, action)
    assert (await ask(playbook_path="a/b"))["message"] == "Access granted to execute playbook"
    answer = await ask(playbook_path="a/b", session_token="old")
    assert (answer["allowed"], answer["message"]) == (False, "Access denied - no active session")
    for wrong, place in (({}, "playbook_path"), ({"playbook_path": "x", "action": "eat"}, "action")):
        status, answer = await api.request("POST", path, {"session_token": "good", **wrong})
        assert (status, answer["detail"][0]["loc"]) == (422, ["body", place])


async def test_sql_runs_on_the_database_of_a_credential(api: RunningApi, users: str) -> None:
    assert (await run(api, "SELECT count(*) FROM auth.users", credential=users))["result"] == [{"count": 1}]
    answer = await run(api, "SELECT 1", connection_string="postgresql://who:secret-word@127.0.0.1:1/x")
    assert answer["status"] == "error"
    assert answer["error"].startswith("connection failed: ")
    assert "secret-word" not in str(answer)


async def test_without_the_users_schema_the_answer_says_so(database_dsn: str) -> None:
    async with running_api(database_dsn) as api:
        dsn = {"connection_string": database_dsn}
        await api.request("POST", "/api/credentials", {"name": "pg_auth", "type": "postgres", "data": dsn})
        _, answer = await api.request("POST", "/api/auth/session/validate", {"session_token": "x"})
    assert (answer["status"], answer["valid"]) == ("error", False)
    assert answer["error"] == (
        'relation "auth.sessions" does not exist\nLINE 17:                         FROM auth.sessions s\n'
        "                                      ^"
    )


async def test_the_weather_summary_is_read_when_its_table_is_there(api: RunningApi) -> None:
    path = "/api/postgres/weather_alert_summary/5/last"
    _, answer = await api.request("GET", path)
    assert answer == {
        "status": "error",
        "row": None,
        "error": 'relation "public.weather_alert_summary" does not exist\n'
        "LINE 3:                         FROM public.weather_alert_summary\n"
        "                                     ^",
    }
    columns = "id int, alert_cities jsonb, alert_count int, execution_id bigint, created_at timestamp"
    table = f"CREATE TABLE public.weather_alert_summary ({columns})"
    await run(api, table, allow_write=True)
    assert await api.request("GET", path) == (200, {"status": "ok", "row": None, "error": None})
    await run(
        api,
        "INSERT INTO public.weather_alert_summary VALUES (1, '[\"Paris\"]', 1, 5, '2026-01-01')",
        allow_write=True,
    )
    _, answer = await api.request("GET", path)
    assert (answer["row"]["alert_cities"], answer["row"]["alert_count"]) == (["Paris"], 1)
