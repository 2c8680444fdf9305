"""Every example runs to the end that its header promises."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.support.stack import ROOT, Stack

EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
async def test_an_example_completes(stack: Stack, file: Path) -> None:
    payload = (
        {"url": f"{stack.url}/api/health"} if "url" in (yaml.safe_load(file.read_text()).get("workload") or {}) else {}
    )
    execution_id = await stack.execute(await stack.register(file.read_text()), payload)
    status = await stack.until_ended(execution_id)
    assert status["status"] == "COMPLETED", status


def test_the_readme_of_the_examples_names_each() -> None:
    text = (ROOT / "examples" / "README.md").read_text()
    assert {file.name for file in EXAMPLES} == {
        line.split("`")[1] for line in text.splitlines() if line.startswith("| `")
    }
