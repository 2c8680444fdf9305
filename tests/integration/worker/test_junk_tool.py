"""Whatever is written under a documented key: a tool answers, or fails with a clear error of its own."""

from __future__ import annotations

from typing import Any

import pytest

from services.worker.tools import TOOLS, ToolError
from services.worker.tools.absent import ABSENT
from shared.engine.toolkeys import COMMON, TOOL_KEYS
from tests.integration.worker.conftest import Call, FakeApi

JUNK: list[Any] = [
    "",
    "x",
    "{{",
    "\x00",
    "ä" * 300,
    0,
    -1,
    10**20,
    1.5,
    True,
    [],
    [1],
    [[]],
    {},
    {"a": 1},
    {"a": {"b": None}},
]
LOOPBACK = "http://127.0.0.1:1"
# Enough to get past the first check of each kind, to nowhere.
BASES: dict[str, dict[str, Any]] = {
    "python": {"code": "result = 1"},
    "http": {"url": LOOPBACK},
    "postgres": {"connection_string": "postgresql://u:p@127.0.0.1:1/d", "query": "SELECT 1"},
    "shell": {"cmd": "true"},
    "playbook": {"path": "a/b"},
    "playbooks": {"path": "a/b"},
    "agent": {"entrypoint": "a/b"},
    "nats": {"url": "nats://127.0.0.1:1", "operation": "kv_put", "bucket": "b", "key": "k", "value": 1},
    "transfer": {
        "source": {"type": "csv", "path": "none.csv"},
        "target": {"type": "postgres", "connection_string": "postgresql://u:p@127.0.0.1:1/d", "table": "t"},
    },
    "artifact": {"action": "put", "uri": "junk/a.json", "data": 1},
    "result_fetch": {"ref": "noetl://execution/1/result/s/1"},
    "secrets": {"secret": "s"},
    "container": {"image": "x"},
    "script": {"script": "x", "job": {"image": "x"}},
}
# Their processes cost a tenth of a second each; what reads their keys is SQL's, tested by `postgres`.
SLOW = {"duckdb", "ducklake"}
# A number is an address somewhere on the internet.
ADDRESSES = {
    *("url", "nats_url", "host", "hostname", "db_host", "connection_string", "dsn", "database_url", "endpoint"),
    *("source", "target"),
}
SIDES = ("type", "auth", "query", "table", "path", "mapping", "mode", "key", "columns", "delimiter", "encoding", "url")


def _junk(key: str) -> list[Any]:
    return [junk for junk in JUNK if key not in ADDRESSES or not isinstance(junk, int | float)]


def cases(kind: str) -> list[dict[str, Any]]:
    base = BASES.get(kind, {})
    own = TOOL_KEYS.get(kind, {}) if kind == "shell" else {**COMMON, **TOOL_KEYS.get(kind, {})}
    keys = [key for key in own if key not in ("kind", "timeout", "timeout_seconds")]
    found = [{**base, key: junk} for key in keys for junk in _junk(key)]
    if kind == "transfer":
        for side in ("source", "target"):
            found += [{**base, side: {**base[side], key: junk}} for key in SIDES for junk in _junk(key)]
    return found


@pytest.mark.parametrize("kind", sorted(set(TOOLS) - set(ABSENT) - SLOW))
async def test_junk_is_an_error_of_the_tool(call: Call, api: FakeApi, kind: str) -> None:
    wrong: list[str] = []
    for config in cases(kind):
        try:
            await call(kind, seconds=3.0, **config)
        except ToolError as error:
            if error.code in ("TIMEOUT", "PROCESS_DIED") or not error.message:
                wrong.append(f"{config}: {error.code} {error.message}")
        except Exception as error:  # noqa: BLE001 - what is looked for
            wrong.append(f"{config}: {type(error).__name__}: {error}")
    assert wrong == [], "\n".join(wrong)
