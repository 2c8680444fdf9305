"""Every public fixture playbook and every recorded run of the original, on one stack: end, steps and results.

What is expected stands in `tests/fixtures/table.yaml` for the public fixtures, for the others in the recordings of
`tests/golden/runs` with `tests/golden/deviations.yaml`. All run side by side, `AT_ONCE_MAX` at a time; each test looks at one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import yaml

from tests.support.fixture_run import (
    HERE,
    FixtureStack,
    Outcome,
    differences,
    output_differences,
    public_cases,
    recorded_cases,
    seen,
)
from tests.support.fixtures import FIXTURES, GOLDEN
from tests.support.http_server import fixture_server
from tests.support.stack import Stack

PUBLIC = public_cases()
RECORDED = recorded_cases()
CASES = {**PUBLIC, **RECORDED}
pytestmark = pytest.mark.timeout(400)  # the first test waits for the whole run of its name's dependencies


@pytest.fixture(scope="module")
async def outcomes(request: pytest.FixtureRequest) -> AsyncIterator[dict[str, asyncio.Task[Outcome]]]:
    """Runs of the cases that were selected, all started at once."""
    selected = {
        item.callspec.params["name"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.path == request.path and hasattr(item, "callspec")
    }
    cases = [case for name, (case, _) in CASES.items() if name in selected]
    stack = Stack(workers=2, env={"NOETL_WORKER_MAX_INFLIGHT_COMMANDS": "12", "NOETL_INLINE_MAX_BYTES": "65536"})
    async with fixture_server() as web:
        await stack.start()
        try:
            runs = FixtureStack(stack, web)
            await runs.prepare({case.database for case in cases})
            runs.expect(cases)
            async with asyncio.TaskGroup() as group:
                yield {case.name: group.create_task(_kept(runs.run(case))) for case in cases}
        finally:
            await stack.close()


async def _kept(run: Any) -> Outcome:
    """Run one case; its failure is that of its own test, not of the group."""
    try:
        return await run
    except (AssertionError, OSError, TimeoutError) as error:
        return Outcome.failed_to_run(error)


@pytest.mark.parametrize("name", PUBLIC)
async def test_a_public_fixture_ends_as_its_author_meant(outcomes: dict[str, asyncio.Task[Outcome]], name: str) -> None:
    expected = PUBLIC[name][1]
    outcome = await outcomes[name]
    assert (outcome.status, outcome.ends[1:]) == (expected["end"], []), outcome.error
    if "error" in expected:
        assert expected["error"] in f"{outcome.error} {outcome.document}"
    assert dict(outcome.steps) == expected["steps"]
    for step, values in (expected.get("results") or {}).items():
        assert differences(values, seen(outcome.outputs[step][-1])) == []


@pytest.mark.parametrize("name", RECORDED)
async def test_a_recorded_run_ends_routes_and_answers_as_the_original(
    outcomes: dict[str, asyncio.Task[Outcome]], name: str
) -> None:
    expected = RECORDED[name][1]
    outcome = await outcomes[name]
    assert (outcome.status, outcome.ends[1:]) == (expected["end"], []), outcome.error
    assert dict(outcome.steps) == expected["steps"]
    assert output_differences(expected["outputs"], outcome) == []
    for step, values in expected["results"].items():
        assert differences(values, seen(outcome.outputs[step][-1])) == []


def test_nothing_is_left_out_and_every_deviation_has_a_reason() -> None:
    named = {f"{name}.yaml" for name in PUBLIC}
    assert {str(file.relative_to(GOLDEN / "playbooks")) for file in FIXTURES} <= named
    assert {f"own/{file.name}" for file in (HERE / "own").glob("*.yaml")} <= named
    deviations = yaml.safe_load((GOLDEN / "deviations.yaml").read_text())
    assert {f"runs/{name}" for name in deviations} <= set(RECORDED)
    assert all(item["reason"] for item in deviations.values())
