"""The guide of the language and its schema are made from the parser's tables, and everything they show is right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.dev.playbook_page import PAGE, SCHEMA, page_text
from shared.engine import check_playbook
from shared.engine.schema import schema_text
from tests.support.fixtures import ROOT

MAKE_IT = "run `python -m services.dev.playbook_page`"
PAGES = (PAGE, ROOT / "docs" / "differences.md")


def test_the_tables_of_keys_are_current() -> None:
    assert PAGE.read_text() == page_text(PAGE.read_text()), MAKE_IT


def test_the_schema_is_current() -> None:
    assert SCHEMA.read_text() == schema_text(), MAKE_IT


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), target
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^##+ (.+)$", text, re.M)
    }
    for anchor in re.findall(r"\]\(#([^)]+)\)", text):
        assert anchor in anchors, anchor


def test_steps_that_the_guide_shows_have_no_findings() -> None:
    head = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: x}\nworkflow:\n"
    shown = [
        text for text in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.S) if text.lstrip().startswith("- step:")
    ]
    assert shown
    for text in shown:
        names = set(re.findall(r"step: (\w+)", text)) - set(re.findall(r"- step: (\w+)\n +(?:desc|tool|loop)", text))
        ends = "".join(f"  - step: {name}\n    tool: {{kind: noop}}\n" for name in sorted(names))
        _, problems = check_playbook(f"{head}{text}\n{ends}")
        assert not problems, [str(problem) for problem in problems]
