"""`python -m services.dev.playbook_page`: writes the tables of keys into docs/playbooks.md, and docs/playbook.schema.json.

Both come from the tables that the parser reads. `--check` writes nothing and fails when a file is not what it would write.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from shared.engine import dockeys
from shared.engine.schema import schema_text
from shared.engine.toolkeys import COMMON, TOOL_KEYS, TOOL_KINDS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "playbooks.md"
SCHEMA = ROOT / "docs" / "playbook.schema.json"
BEGIN = "<!-- made by `python -m services.dev.playbook_page`; not edited by hand -->\n"
END = "<!-- end -->\n"
_TABLES: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("The document", dockeys.ROOT),
    ("`metadata`", dockeys.METADATA),
    ("`executor` and `executor.spec`", dockeys.EXECUTOR),
    ("A step", dockeys.STEP),
    ("`spec` of a step", dockeys.STEP_SPEC),
    ("`spec.retry` of a step", dockeys.RETRY),
    ("`next`", dockeys.ROUTER),
    ("`next.spec`", dockeys.ROUTER_SPEC),
    ("An arc", dockeys.ARC),
    ("`loop`", dockeys.LOOP),
    ("`loop.spec`", dockeys.LOOP_SPEC),
    ("`loop.cursor`", dockeys.CURSOR),
    ("`output`", dockeys.OUTPUT),
    ("`spec` of a tool or task", dockeys.TOOL_SPEC),
    ("A rule of `spec.policy.rules`", dockeys.RULE),
    ("`then` of a rule", dockeys.THEN),
    ("An action of the `workbook`", dockeys.WORKBOOK),
    ("Every tool and task", COMMON),
)


def _table(title: str, keys: Mapping[str, str]) -> Iterator[str]:
    yield f"### {title}\n\n| key | meaning |\n|---|---|\n"
    for key, meaning in keys.items():
        yield f"| `{key}` | {meaning.replace('|', chr(92) + '|')} |\n"
    yield "\n"


def reference() -> str:
    """Return the tables of keys as Markdown."""
    parts = [part for title, keys in _TABLES for part in _table(title, keys)]
    for kind in TOOL_KINDS:
        if kind in TOOL_KEYS:
            parts += _table(
                f"`{kind}`", {key: text for key, text in TOOL_KEYS[kind].items() if text != COMMON.get(key)}
            )
    return "".join(parts)


def page_text(page: str) -> str:
    """Return the guide with its tables made anew."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{reference()}{END}{rest.partition(END)[2]}"


def main() -> int:
    """Write both files, or with `--check` say whether they are current; 1 when they are not."""
    made = {PAGE: page_text(PAGE.read_text(encoding="utf-8")), SCHEMA: schema_text()}
    stale = [file for file, text in made.items() if not file.exists() or file.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        for file in stale:
            sys.stderr.write(f"{file} is not current: run `python -m services.dev.playbook_page`\n")
        return 1 if stale else 0
    for file in stale:
        file.write_text(made[file], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
