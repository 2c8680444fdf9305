"""`playhead lint`: every problem with its place, clear words for what cannot be read, and exit codes to rely on."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from services.dev import cli
from services.dev.lint import FILE_BYTES_MAX, LintReport, documents_of, lint, print_report
from shared.engine.limits import PLAYBOOK_BYTES_MAX, PROBLEMS_MAX
from tests.support.fixtures import EXAMPLES, name_of

GOOD = """apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: good}
workflow:
- step: start
  tool: {kind: noop}
"""
BAD = """apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: bad}
workflow:
- step: start
  tool: {kind: pyton}
  next: {arcs: [{step: nowhere}]}
- step: other
  tool: {kind: http, url: "http://x", metod: GET}
"""
WARNS = GOOD.replace("tool: {kind: noop}", "tool: {kind: noop}\n  retrys: 3")


def check(text: str, *, strict: bool = False) -> LintReport:
    return lint(["-"], strict=strict, stdin=io.BytesIO(text.encode()))


def lines(report: LintReport, *, colours: bool = False) -> list[str]:
    out = io.StringIO()
    print_report(report, out, colours=colours)
    return out.getvalue().splitlines()


def test_a_good_playbook_has_no_findings() -> None:
    report = check(GOOD)
    assert (report.exit_code, lines(report)) == (0, ["1 document, 0 errors, 0 warnings"])


def test_every_problem_is_a_line_with_place_severity_key_and_words() -> None:
    report = check(BAD)
    *found, counts = lines(report)
    assert found[0].startswith("<stdin>:6:10: error: workflow.0.tool.kind: unknown tool kind 'pyton': Input should be")
    assert (
        found[1] == "<stdin>:7:18: error: workflow.0.next.arcs.0.step: Step 'start': next step 'nowhere' does not exist"
    )
    assert (
        found[2] == "<stdin>:9:39: warning: workflow.1.tool.metod: "
        "tool kind 'http' has no key 'metod'; did you mean 'method'?"
    )
    assert counts == "1 document, 2 errors, 1 warning"
    assert report.exit_code == 1


def test_strict_makes_warnings_errors() -> None:
    assert check(WARNS).exit_code == 0
    assert check(WARNS).count("warning") == 1
    assert check(WARNS, strict=True).exit_code == 1
    assert check(WARNS, strict=True).count("error") == 1


def test_documents_of_one_file_keep_their_lines() -> None:
    report = check(f"# first\n{GOOD}---\n{BAD}---\n# nothing here\n---\n{WARNS}")
    assert report.documents == 3
    assert [(item.document, item.problem.line) for item in report.findings] == [(2, 14), (2, 15), (2, 17), (3, 27)]


def test_what_stands_before_a_syntax_error_is_checked_too() -> None:
    report = check(f"{WARNS}---\na: [1\n---\nb: 2\n")
    assert [(item.problem.line, item.problem.severity) for item in report.findings] == [(7, "warning"), (10, "error")]
    assert "not YAML" in report.findings[1].problem.message


def test_documents_that_nobody_runs_are_left_out() -> None:
    report = check("apiVersion: noetl.io/v2\nkind: Mcp\nmetadata: {name: x}\n")
    assert (report.documents, report.skipped, report.exit_code) == (0, 1, 0)


def test_a_directory_is_searched_and_what_is_no_playbook_left_out(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "sub" / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yml").write_text(BAD)
    (tmp_path / "compose.yaml").write_text("services: {a: {image: b}}\n")
    (tmp_path / "notes.txt").write_text(BAD)
    (tmp_path / ".hidden" / "bad.yaml").write_text(BAD)
    report = lint([str(tmp_path)], strict=False, stdin=io.BytesIO())
    assert (report.files, report.documents, report.skipped) == (3, 2, 1)
    assert {item.file for item in report.findings} == {str(tmp_path / "bad.yml")}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x7fELF\x00\x00\x01", "a binary file"),
        ("name: \xe4".encode("latin-1"), "not UTF-8 at byte 6"),
        (b"a" * (FILE_BYTES_MAX + 1), "larger than"),
    ],
)
def test_a_file_that_is_no_text_is_unreadable(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "file.yaml"
    file.write_bytes(content)
    report = lint([str(file)], strict=False, stdin=io.BytesIO())
    assert report.exit_code == 2
    assert words in lines(report)[0]


def test_missing_files_and_empty_directories_are_named(tmp_path: Path) -> None:
    report = lint([str(tmp_path / "none.yaml"), str(tmp_path), "a\x00b"], strict=False, stdin=io.BytesIO())
    assert [message for _, message in report.unreadable] == [
        "no such file or directory",
        "a directory without .yaml or .yml files",
        "cannot be read: embedded null byte",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the document must be a mapping"),
        ("- 1\n", "the document must be a mapping"),
        ("a: &a [x, x]\n" + "".join(f"b{i}: &b{i} [{','.join(['*a'] * 9)}]\n" for i in range(3)), "Field required"),
        (
            "a0: &a0 [x]\n" + "".join(f"a{i + 1}: &a{i + 1} [{','.join([f'*a{i}'] * 10)}]\n" for i in range(8)),
            "more than 100000 values",
        ),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("a: " + "x" * PLAYBOOK_BYTES_MAX, "at most"),
        ("a: &a [*a]\n", "nested too deeply"),
    ],
    ids=["empty", "list", "aliases", "bomb", "open", "deep", "large", "recursive"],
)
def test_strange_documents_are_findings(text: str, words: str) -> None:
    report = check(text)
    assert report.exit_code == 1
    assert any(words in item.problem.message for item in report.findings), lines(report)


def test_more_problems_than_are_shown_are_counted_and_errors_come_first() -> None:
    steps = "".join(f"- {{step: s{i}, tool: {{kind: noop}}, vars: {{}}}}\n" for i in range(PROBLEMS_MAX + 10))
    report = check(GOOD + steps + "- {step: last, tool: {kind: pyton}}\n")
    assert len(report.findings) == PROBLEMS_MAX
    assert report.count("error") == 1
    assert "more problems are not shown" in report.findings[-1].problem.message


def test_text_from_a_file_cannot_steer_the_terminal() -> None:
    report = check(GOOD.replace("  tool", "  'bell\x85': 1\n  tool").replace("good}", 'good, "\\e[2J": 1}'))
    assert all(line.isprintable() for line in lines(report))


def test_colours_are_for_terminals() -> None:
    report = check(BAD)
    assert any("\x1b[31merror\x1b[0m" in line for line in lines(report, colours=True))
    assert not any("\x1b" in line for line in lines(report))


def test_the_json_report_has_its_documented_shape(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(BAD)
    assert cli.main(["lint", "--json", str(file), str(tmp_path / "none")]) == 2
    report = json.loads(capsys.readouterr().out)
    assert {key: value for key, value in report.items() if key not in ("problems", "unreadable")} == {
        "version": 1,
        "files": 1,
        "documents": 1,
        "skipped": 0,
        "errors": 2,
        "warnings": 1,
    }
    assert report["problems"][2] == {
        "file": str(file),
        "document": 1,
        "line": 9,
        "column": 39,
        "key": "workflow.1.tool.metod",
        "message": "tool kind 'http' has no key 'metod'; did you mean 'method'?",
        "severity": "warning",
    }
    assert report["unreadable"] == [{"file": str(tmp_path / "none"), "message": "no such file or directory"}]


def test_no_file_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["lint"])
    assert stopped.value.code == 2
    assert "FILE" in capsys.readouterr().err


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Playbook"


@pytest.mark.parametrize("file", EXAMPLES, ids=name_of)
def test_the_examples_have_no_findings(file: Path) -> None:
    report = lint([str(file)], strict=True, stdin=io.BytesIO())
    assert lines(report) == [lines(report)[-1]]
    assert report.documents == 1


def test_a_stream_without_documents_is_one_empty_document() -> None:
    assert documents_of("# only a comment\n") == [(0, "# only a comment\n")]
