"""`playhead lint`: everything that is wrong with playbook files, without a server."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, TextIO

import orjson
import yaml

from shared.engine import PlaybookError, Problem, check_playbook, read_document
from shared.engine.limits import PLAYBOOK_BYTES_MAX

EXIT_OK, EXIT_PROBLEMS, EXIT_UNREADABLE = 0, 1, 2
REPORT_VERSION = 1  # of the JSON report; it grows by new members only
FILE_BYTES_MAX = 4 * PLAYBOOK_BYTES_MAX  # one file may hold several documents
FILES_MAX = 10_000  # of one directory
DEPTH_MAX = 500  # of nesting: deeper is refused anyway, and takes the scanner quadratic time
CHECKED_KINDS = ("playbook", "agent")  # what the API checks at registration, too
SUFFIXES = (".yaml", ".yml")
STDIN = "-"
_COLOURS = {"error": "31", "warning": "33"}


class UnreadableError(Exception):
    """A file that cannot be checked; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A problem of one document of one file; `document` counts from 1."""

    file: str
    document: int
    problem: Problem

    def as_json(self) -> dict[str, object]:
        """Return the finding as it stands in the report."""
        return {"file": self.file, "document": self.document, **asdict(self.problem)}


@dataclass(slots=True)
class LintReport:
    """What was looked at and what was found."""

    files: int = 0
    documents: int = 0
    skipped: int = 0  # documents of other kinds, which nobody runs
    findings: list[Finding] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def count(self, severity: str) -> int:
        """Return how many findings have this severity."""
        return sum(finding.problem.severity == severity for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0: no errors; 1: errors; 2: something could not be read."""
        if self.unreadable:
            return EXIT_UNREADABLE
        return EXIT_PROBLEMS if self.count("error") else EXIT_OK

    def as_json(self) -> dict[str, object]:
        """Return the documented report (docs/playbooks.md, "Checking a playbook")."""
        return {
            "version": REPORT_VERSION,
            "files": self.files,
            "documents": self.documents,
            "skipped": self.skipped,
            "errors": self.count("error"),
            "warnings": self.count("warning"),
            "problems": [finding.as_json() for finding in self.findings],
            "unreadable": [{"file": file, "message": message} for file, message in self.unreadable],
        }


def _files_below(directory: Path) -> Iterator[Path]:
    """Yield the YAML files of a directory, sorted; hidden directories and links to directories are left out."""
    for place, directories, names in os.walk(directory):
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(names) if name.endswith(SUFFIXES))


def _text(source: BinaryIO) -> str:
    raw = source.read(FILE_BYTES_MAX + 1)
    if len(raw) > FILE_BYTES_MAX:
        raise UnreadableError(f"larger than {FILE_BYTES_MAX} bytes: no file of playbooks")
    if b"\x00" in raw[:8192] and not raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableError("a binary file: a playbook is YAML in UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError(f"not UTF-8 at byte {error.start}: save the file as UTF-8") from error


def _read(file: Path) -> str:
    try:
        with file.open("rb") as source:
            return _text(source)
    except FileNotFoundError as error:
        raise UnreadableError("no such file or directory") from error
    except PermissionError as error:
        raise UnreadableError("permission denied") from error
    except (OSError, ValueError) as error:
        raise UnreadableError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def documents_of(text: str) -> list[tuple[int, str]]:
    """Return the documents of a YAML stream, each with the number of lines before it; empty ones are left out.

    What comes after a syntax error is one document: there is no telling where the next one starts.
    """
    found: list[tuple[int, str]] = []
    start = nodes = depth = 0
    is_empty = True
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH_MAX:
                raise RecursionError
            if isinstance(event, yaml.NodeEvent):
                nodes += 1
                is_empty = nodes == 1 and isinstance(event, yaml.ScalarEvent) and event.value == ""
            elif isinstance(event, yaml.DocumentEndEvent):
                end = event.end_mark.index if event.end_mark else len(text)
                if not is_empty:
                    found.append((text.count("\n", 0, start), text[start:end]))
                start, nodes, is_empty = end, 0, True
    except (yaml.YAMLError, RecursionError):
        found.append((text.count("\n", 0, start), text[start:]))
    return found or [(0, text)]


def _problems(text: str, *, strict: bool, only_playbooks: bool) -> list[Problem] | None:
    """Return what is wrong with one document, None when it is of a kind that nobody runs."""
    try:
        document = read_document(text)
    except PlaybookError as error:
        return error.problems
    kind = str(document.data.get("kind", "playbook")).lower()
    version = str(document.data.get("apiVersion", ""))
    is_playbook = kind in CHECKED_KINDS or "workflow" in document.data
    if not is_playbook and (only_playbooks or version.startswith("noetl.io/")):
        return None
    if only_playbooks and not version.startswith("noetl.io/") and "workflow" not in document.data:
        return None
    return check_playbook(document, strict=strict)[1]


def check_text(report: LintReport, file: str, text: str, *, strict: bool, only_playbooks: bool = False) -> None:
    """Add the findings of one file to `report`.

    Args:
        report: grows.
        file: name of the file in the findings.
        text: its content; several documents are checked one by one.
        strict: warnings are errors.
        only_playbooks: leave out what is plainly something else: the file was not named, its directory was.
    """
    report.files += 1
    for number, (lines_before, document) in enumerate(documents_of(text), start=1):
        problems = _problems(document, strict=strict, only_playbooks=only_playbooks)
        if problems is None:
            report.skipped += 1
            continue
        report.documents += 1
        for problem in problems:
            placed = replace(problem, line=problem.line + lines_before) if problem.line else problem
            report.findings.append(Finding(file=file, document=number, problem=placed))


def lint(names: Sequence[str], *, strict: bool, stdin: BinaryIO) -> LintReport:
    """Check files, the YAML files below directories, and with `-` the standard input."""
    report = LintReport()
    for name in names:
        try:
            if name == STDIN:
                check_text(report, "<stdin>", _text(stdin), strict=strict)
            elif Path(name).is_dir():
                _lint_directory(report, Path(name), strict=strict)
            else:
                check_text(report, name, _read(Path(name)), strict=strict)
        except UnreadableError as error:
            report.unreadable.append((name, str(error)))
    return report


def _lint_directory(report: LintReport, directory: Path, *, strict: bool) -> None:
    number = 0
    for number, file in enumerate(_files_below(directory), start=1):
        if number > FILES_MAX:
            raise UnreadableError(f"more than {FILES_MAX} YAML files: name the directories with playbooks")
        try:
            check_text(report, str(file), _read(file), strict=strict, only_playbooks=True)
        except UnreadableError as error:
            report.unreadable.append((str(file), str(error)))
    if not number:
        raise UnreadableError(f"a directory without {' or '.join(SUFFIXES)} files")


def _printable(text: str) -> str:
    """Return `text` without characters that would steer a terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def print_report(report: LintReport, out: TextIO, *, colours: bool) -> None:
    """Write one line per finding, `file:line:column: severity: key: message`, and a line with the counts."""

    def paint(code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if colours else text

    for finding in report.findings:
        problem = finding.problem
        place = f"{finding.file}:{problem.line}:{problem.column}" if problem.line else finding.file
        severity = paint(_COLOURS[problem.severity], problem.severity)
        text = f"{problem.key}: {problem.message}" if problem.key else problem.message
        out.write(f"{paint('1', _printable(place))}: {severity}: {_printable(text)}\n")
    for file, message in report.unreadable:
        out.write(f"{paint('1', _printable(file))}: {paint('31', 'unreadable')}: {_printable(message)}\n")
    counts = [_counted(report.documents, "document"), _counted(report.count("error"), "error")]
    counts.append(_counted(report.count("warning"), "warning"))
    if report.skipped:
        counts.append(f"{report.skipped} of other kinds left out")
    if report.unreadable:
        counts.append(f"{len(report.unreadable)} unreadable")
    out.write(", ".join(counts) + "\n")


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def run_lint(names: Sequence[str], *, strict: bool, as_json: bool) -> int:
    """Run `playhead lint` and return its exit code."""
    report = lint(names, strict=strict, stdin=sys.stdin.buffer)
    if as_json:
        sys.stdout.write(orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        print_report(report, sys.stdout, colours=colours)
    return report.exit_code
