"""Names in templates that nothing in the playbook defines: most often a typing error.

A payload may bring names that the workload does not have, so this is a warning, and a name that the author has thought of
(`default`, `is defined`, the left of `or`, a condition of `if`) is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from shared.engine.document import Path, Report, did_you_mean
from shared.engine.limits import PROBLEMS_MAX
from shared.engine.outcome import bare_key
from shared.engine.templates import needed_names

_CODE = frozenset({"code", "code_b64", "code_base64"})  # has braces of its own
_CONDITIONS = frozenset({"when", "on"})
# fmt: off
_ALWAYS = frozenset((  # engine_spec.md section 2.5, both lines
    "workload", "ctx", "iter", "args", "steps", "path", "version", "job", "execution_id", "catalog_id", "event", "output",
    "outcome", "error", "result", "response", "loop", "loop_index", "loop_event_id", "_index", "_total", "_first", "_last",
    "keychain", "_prev", "_task", "_attempt", "attempt", "results", "env", "step", "server_url", "worker_id", "command_id",
    "action", "node_name", "context", "vars", "now", "token", "parent_execution_id",
    "_frame_index", "_frame_row_index", "_frame_rows",
))
# fmt: on


def check_names(report: Report, data: Mapping[str, Any], steps: Iterable[str]) -> None:
    """Warn about names that nothing defines, once per name, where it stands first; `PROBLEMS_MAX` of them."""
    workload, workflow, workbook = (data.get(key) for key in ("workload", "workflow", "workbook"))
    known = {
        *_ALWAYS,
        *steps,
        *(workload if isinstance(workload, Mapping) else ()),
        *_defined(workflow),
        *_defined(workbook),
    }
    told: set[str] = set()
    for key, value in (("workflow", workflow), ("workbook", workbook)):
        for path, text in _texts(value, (key,)):
            for name in sorted(needed_names(text, condition=path[-1] in _CONDITIONS) - known - told):
                if name.startswith("__"):  # bookkeeping of cursors and loops
                    continue
                more = did_you_mean(name, known)
                words = f"nothing in this playbook defines '{name}': give it a value in `workload`, or a default{more}"
                report.warn(path, words)
                told.add(name)
                if len(told) >= PROBLEMS_MAX:
                    return


def _defined(value: Any) -> Iterator[str]:
    """Yield names that a part of the playbook defines: variables, inputs, iterators, tasks."""
    if isinstance(value, list):
        for item in value:
            yield from _defined(item)
    if not isinstance(value, Mapping):
        return
    for key, inner in value.items():
        if key in ("set", "args", "input") and isinstance(inner, Mapping):
            yield from (bare_key(name).partition(".")[0] for name in inner)
        elif key in ("iterator", "name", "in", "as") and isinstance(inner, str):
            yield inner
        elif isinstance(inner, Mapping) and "kind" in inner:
            yield key  # a task as {label: {kind, ...}}
        yield from _defined(inner)


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in _CODE:
                yield from _texts(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, (*path, index))
