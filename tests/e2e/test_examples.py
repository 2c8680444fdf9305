"""Every example runs to the end that its header promises, with the result that its reader expects."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.support.fixture_run import differences
from tests.support.fixtures import EXAMPLES, ROOT
from tests.support.stack import Stack

# Values that the result of the execution, which is that of its last step, must have.
RESULTS: dict[str, Any] = {
    "choice": {"decision": "60.0 is paid"},
    "child": {"doubled": 0},
    "cursor_loop": {"rows": [{"done": 12}]},
    "cycle": {"n": 128},
    "duckdb": {"rows": [{"region": "north", "amount": 8}, {"region": "south", "amount": 4}]},
    "entry": {"worked": True},
    "fan_out": {"rows": [["RED", "der", 3], ["GREEN", "neerg", 5], ["BLUE", "eulb", 4]]},
    "handled_failure": {"cleaned_up_because": "the disk is full"},
    "hello_world": {"message": "HELLO, WORLD!"},
    "http_and_shell": {},
    "keychain": {"scheme": "nats"},
    "large_result": {"rows": 20_000},
    "loop": {"lines": ["0: red", "1: green", "2: blue"], "done": 3},
    "nats": {"value": {"text": "hello"}},
    "on_error": {},
    "parallel_loop": {
        "squares": [0, 1, 4, 9, None, 25, 36, 49, 64, None],
        "stats": {"total": 10, "success": 8, "failed": 2},
    },
    "postgres": {"found": 2},
    "python_forms": {"size": "large", "sha256": "2cf24dba"},
    "retry": {"said": "third time"},
    "script_file": {"greeting": "Hello, Ada!"},
    "sequence": {"count": 6, "last": [30, 31]},
    "skip": {"total": 95},
    "sub_playbook": {"one": 42, "each": [2, 4, 6]},
    "templates": {
        "number": 12,
        "text": "limit 12",
        "names": ["Ada", "Grace"],
        "oldest": "Ada",
        "sentence": "Ada and Grace",
        "nothing": None,
    },
    "timeout": {},
    "transfer": {"rows": [{"rows": 1000, "last": "row 999"}]},
    "variables": {"text": "order 007: 7.5", "types": ["float", "int"], "missing": "nothing"},
    "workbook": {"text": "Good morning, Grace!"},
}


@pytest.fixture(scope="module")
async def ready(stack: Stack) -> Stack:
    """The stack with the credentials that examples name, and every example registered."""
    parts = urlsplit(stack.ready["postgres_dsn"])
    database = {"host": parts.hostname, "port": parts.port, "user": parts.username, "password": parts.password}
    postgres = {f"db_{key}": value for key, value in database.items()} | {"db_name": parts.path.lstrip("/")}
    for name, kind, data in (
        ("my_postgres", "postgres", postgres),
        ("my_nats", "nats", {"nats_url": stack.ready["nats_url"]}),
    ):
        status, answer = await stack.request("POST", "/api/credentials", {"name": name, "type": kind, "data": data})
        assert status in (200, 201), answer
    for file in EXAMPLES:
        await stack.register(file.read_text())
    return stack


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
async def test_an_example_ends_as_its_header_says(ready: Stack, file: Path) -> None:
    text = file.read_text()
    workload = yaml.safe_load(text).get("workload") or {}
    payload: dict[str, Any] = {"url": f"{ready.url}/api/health"} if "url" in workload else {}
    if "file" in workload:
        payload["file"] = str(ROOT / workload["file"])
    execution_id = await ready.execute(await ready.register(text), payload)
    status = await ready.until_ended(execution_id)
    assert status["status"] == ("FAILED" if "# Ends: FAILED" in text else "COMPLETED"), status
    _, detail = await ready.request("GET", f"/api/executions/{execution_id}")
    assert differences(RESULTS[file.stem], (detail["result"] or {}).get("context")) == []


def test_the_readme_of_the_examples_names_each() -> None:
    text = (ROOT / "examples" / "README.md").read_text()
    named = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")}
    assert {file.name for file in EXAMPLES} == named


def test_the_guide_shows_each() -> None:
    text = (ROOT / "docs" / "playbooks.md").read_text()
    assert [file.name for file in EXAMPLES if f"examples/{file.name}" not in text] == []
