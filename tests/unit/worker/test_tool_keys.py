"""What a tool reads, the language knows: otherwise `playhead lint` would warn of a key that works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.worker.tools import TOOLS
from services.worker.tools.absent import ABSENT
from shared.engine.toolkeys import COMMON, TOOL_KEYS, TOOL_KINDS

TOOLS_DIRECTORY = Path(__file__).resolve().parents[3] / "services" / "worker" / "tools"
READS = re.compile(r'config(?:\.get\(|\[)"(\w+)"')
MODULES = {
    "artifact": "artifact",
    "duckdb": "ducklake",
    "http": "http",
    "nats": "nats",
    "playbook": "playbook",
    "postgres": "postgres",
    "python": "python",
    "secrets": "secrets",
    "shell": "shell",
    "transfer": "transfer",
}
OF_AGENTS = {"framework", "entrypoint"}  # one module has both kinds


@pytest.mark.parametrize(("module", "kind"), MODULES.items())
def test_every_key_that_a_tool_reads_is_documented(module: str, kind: str) -> None:
    read = set(READS.findall((TOOLS_DIRECTORY / f"{module}.py").read_text()))
    assert read
    assert read - OF_AGENTS - set(TOOL_KEYS[kind]) - set(COMMON) == set()


def test_every_kind_of_the_worker_is_one_of_the_language() -> None:
    assert set(TOOLS) <= set(TOOL_KINDS)
    assert set(TOOLS) - set(ABSENT) <= set(TOOL_KEYS)
