"""A playbook document as plain data, with the place of every key, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

import yaml

from shared.engine.limits import PLAYBOOK_BYTES_MAX, PLAYBOOK_NODES_MAX
from shared.engine.templates import check_template

Path = tuple[str | int, ...]
Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One finding; `line` and `column` count from 1, 0 when there is no place."""

    line: int
    column: int
    key: str
    message: str
    severity: Severity = "error"

    def __str__(self) -> str:
        place = f"line {self.line}" if self.line else "document"
        return f"{place}, {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class PlaybookError(ValueError):
    """The document is no playbook the engine can run; `problems` says where and why."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


@dataclass(slots=True)
class Document:
    """Plain data, and where each key of it stands: `places[("workflow", 0, "tool")]` = (line, column)."""

    data: dict[str, Any]
    places: dict[Path, tuple[int, int]]
    problems: list[Problem]


class _Loader(yaml.SafeLoader):
    """Stops composing when there are too many nodes: a text of the largest size can hold nodes for several seconds."""

    _nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._nodes += 1
        if self._nodes > PLAYBOOK_NODES_MAX:
            raise _too_many_values()
        return super().compose_node(parent, index)


def _too_many_values() -> PlaybookError:
    return PlaybookError([Problem(line=0, column=0, key="", message=f"more than {PLAYBOOK_NODES_MAX} values")])


class _Reader:
    """Builds plain data from composed YAML, counting nodes with aliases expanded."""

    def __init__(self) -> None:
        self.places: dict[Path, tuple[int, int]] = {}
        self.problems: list[Problem] = []
        self._count = 0
        self._loader = yaml.SafeLoader("")

    def read(self, node: yaml.Node, path: Path) -> Any:
        self._count += 1
        if self._count > PLAYBOOK_NODES_MAX:
            raise _too_many_values()
        self.places.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(child, (*path, index)) for index, child in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        self._loader.flatten_mapping(node)
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            if not _is_text(key):
                self._problem(
                    key_node, path, "", "the key has a NUL or a lone surrogate, which cannot be stored", "error"
                )
                continue
            if key in found and key_node.start_mark.line > node.start_mark.line:
                self._problem(key_node, path, key, "the key stands twice; the last one counts", "warning")
            found[key] = self.read(value_node, (*path, key))
            self.places[(*path, key)] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
        return found

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        try:
            value = self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            self._problem(node, path, "", f"not a plain value: {error}", "error")
            return None
        if isinstance(value, str) and not _is_text(value):
            self._problem(node, path, "", "the text has a NUL or a lone surrogate, which cannot be stored", "error")
            return None
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            self._problem(node, path, "", "an integer has at most 64 bits: write it as text, in quotes", "error")
            return None
        if value is None or isinstance(value, str | bool | int | float):
            return value
        return str(node.value)  # dates and the like stay the text they were

    def _problem(self, node: yaml.Node, path: Path, key: str, text: str, severity: Severity) -> None:
        mark = node.start_mark
        name = _dotted((*path, key) if key else path)
        self.problems.append(
            Problem(line=mark.line + 1, column=mark.column + 1, key=name, message=text[:300], severity=severity)
        )


def _is_text(value: str) -> bool:
    """Whether `value` can be stored: YAML escapes can make characters that UTF-8 or Postgres do not have."""
    return ("\x00" not in value and value.isascii()) or not any(
        char == "\x00" or "\ud800" <= char <= "\udfff" for char in value
    )


def _dotted(path: Path) -> str:
    return ".".join(str(part) for part in path)


def read_document(content: str) -> Document:
    """Return a YAML document as plain data: what JSON can hold, dates as the text they were.

    Raises:
        PlaybookError: the text is no YAML mapping, is over a bound, or has values that are not plain.
    """
    if len(content.encode()) > PLAYBOOK_BYTES_MAX:
        raise PlaybookError(
            [Problem(line=0, column=0, key="", message=f"a document has at most {PLAYBOOK_BYTES_MAX} bytes")]
        )
    reader = _Reader()
    try:
        node = yaml.compose(content, Loader=_Loader)
        data = None if node is None else reader.read(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise PlaybookError(
            [Problem(line=line, column=column, key="", message=f"not YAML: {error.problem or error.context}")]
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        text = "nested too deeply" if isinstance(error, RecursionError) else f"not YAML: {str(error)[:200]}"
        raise PlaybookError([Problem(line=0, column=0, key="", message=text)]) from error
    if not isinstance(data, dict):
        raise PlaybookError([Problem(line=1, column=1, key="", message="the document must be a mapping")])
    errors = [problem for problem in reader.problems if problem.severity == "error"]
    if errors:
        raise PlaybookError(errors)
    return Document(data=data, places=reader.places, problems=reader.problems)


class Report:
    """Collects what is wrong with a document, each finding with its line, column and key."""

    def __init__(self, document: Document) -> None:
        self._places = document.places
        self.problems = list(document.problems)

    @property
    def has_errors(self) -> bool:
        """Whether anything found keeps the document from running."""
        return any(problem.severity == "error" for problem in self.problems)

    def add(self, path: Path, message: str, severity: Severity = "error") -> None:
        """Note a finding at `path`, or at the nearest key above that stands in the text."""
        place = path
        while place and place not in self._places:
            place = place[:-1]
        line, column = self._places.get(place, (1, 1))
        self.problems.append(Problem(line=line, column=column, key=_dotted(path), message=message, severity=severity))

    def warn(self, path: Path, message: str) -> None:
        """Note something that does not keep the document from running."""
        self.add(path, message, "warning")

    def line(self, path: Path) -> int:
        """Return the line of a key, 0 when it has none."""
        return self._places.get(path, (0, 0))[0]

    def mapping(self, value: object, path: Path) -> dict[str, Any]:
        """Return `value` when it is a mapping; nothing is an empty one, anything else is a problem."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.add(path, f"must be a mapping, not {kind_of(value)}")
            return {}
        return value

    def choice(self, value: object, known: tuple[str, ...], path: Path) -> str | None:
        """Return `value` when it is one of `known`, None when it is absent or wrong."""
        if value is None:
            return None
        if value in known:
            return str(value)
        quoted = [f"'{item}'" for item in known]
        self.add(path, f"Input should be {', '.join(quoted[:-1])} or {quoted[-1]}")
        return None

    def when(self, value: object, path: Path) -> str | None:
        """Return a condition; its syntax is checked."""
        if value is None:
            return None
        if not isinstance(value, str):
            self.add(path, 'Input should be a valid string: write the condition as text, as in "{{ ctx.ready }}"')
            return None
        wrong = check_template(value, condition=True)
        if wrong is not None:
            self.add(path, f"not a valid condition: {wrong}")
        return value

    def templates(self, value: object, path: Path) -> None:
        """Check the syntax of every template in `value`."""
        if isinstance(value, str):
            wrong = check_template(value)
            if wrong is not None:
                self.add(path, f"not a valid template: {wrong}")
        elif isinstance(value, dict):
            for key, item in value.items():
                self.templates(item, (*path, key))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                self.templates(item, (*path, index))

    def unknown_keys(self, value: Mapping[str, Any], known: Mapping[str, str], path: Path, *, where: str) -> None:
        """Warn about keys that nothing reads."""
        for key in value:
            if key not in known:
                more = did_you_mean(key, known)
                self.warn((*path, key), f"{where}: unknown key '{key}' is ignored{more}")


def did_you_mean(key: str, known: Iterable[str]) -> str:
    """Return the end of a message about `key` that names the known key it looks like, if there is one."""
    close = get_close_matches(key[:100], known, n=1, cutoff=0.7)
    return f"; did you mean '{close[0]}'?" if close else ""


def kind_of(value: object) -> str:
    """Return the kind of a YAML value in words."""
    names = {dict: "a mapping", list: "a list", str: "text", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "nothing")
