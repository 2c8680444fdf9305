"""Playbooks that eat memory, time or space end with a clear error of their own step, and nobody else notices."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.playbooks import LINEAR
from tests.support.stack import Stack

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: hostile, path: hostile/%s}\nworkflow:\n"
STEPS = {
    "template-without-end": (
        "  - step: start\n    tool: {kind: noop}\n    next: {arcs: [{step: bad}]}\n"
        '  - step: bad\n    tool: {kind: noop, input: {x: "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}'
        '{% endfor %}"}}\n',
        "template",
    ),
    "python-that-eats-memory": (
        '  - step: start\n    tool: {kind: python, code: "x = [bytearray(1 << 28) for _ in range(1000)]"}\n',
        "Memory",
    ),
    "python-that-never-returns": (
        '  - step: start\n    tool: {kind: python, timeout: 1, code: "while True: pass"}\n',
        "longer than 1 s",
    ),
    "result-of-200-MB": (
        "  - step: start\n    tool: {kind: python, code: \"result = {'t': 'x' * (200 << 20)}\"}\n",
        "at most",
    ),
    "collection-that-is-none": (
        "  - step: start\n    tool: {kind: noop}\n    next: {arcs: [{step: bad}]}\n"
        "  - step: bad\n    loop: {in: \"{{ 'not a list' }}\", iterator: i}\n    tool: {kind: noop}\n",
        "loop.in",
    ),
    "shell-that-prints-without-end": (
        '  - step: start\n    tool: {kind: shell, timeout: 1, cmd: "yes"}\n',
        "longer than 1 s",
    ),
    "fork-bomb-of-steps": (
        "  - step: start\n    tool: {kind: noop}\n    next: {arcs: [{step: a}]}\n"
        "  - step: a\n    next: {arcs: [{step: b}]}\n  - step: b\n    next: {arcs: [{step: a}]}\n",
        "cycle",
    ),
}


@pytest.mark.parametrize("name", STEPS)
async def test_it_ends_with_a_clear_error(stack: Stack, name: str) -> None:
    steps, expected = STEPS[name]
    catalog_id = await stack.register(HEAD % name + steps)
    neighbour = await stack.register(LINEAR)
    hostile = await stack.execute(catalog_id)
    neighbours = [await stack.execute(neighbour) for _ in range(3)]
    for execution in neighbours:
        assert (await stack.until_ended(execution))["status"] == "COMPLETED"
    status = await stack.until_ended(hostile)
    assert status["status"] == "FAILED", status
    assert expected in status["error"], status["error"]
    assert "Traceback" not in status["error"]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{name}: &{name} [*{before},*{before},*{before},*{before},*{before},*{before},*{before},*{before}]\n"
            for before, name in zip("abcdefgh", "bcdefghi", strict=True)
        ), "values"),
        ("x: " + "[" * 5000, "deep"),
    ],
)  # fmt: skip
async def test_a_document_that_is_a_bomb_is_refused_at_once(stack: Stack, document: str, expected: str) -> None:
    async with asyncio.timeout(30):
        status, answer = await stack.request("POST", "/api/catalog/register", {"content": document})
    assert status in (413, 422), answer
    assert expected in str(answer["detail"])
