"""The comparison of two answers: what it sees, what masks hide, what a declared difference allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.dev.parity.compare import compare
from services.dev.parity.recordings import Answer, RecordingError, Request, load_recordings, parse_answer
from services.dev.parity.rules import Change, Difference, Mask, MaskKind, RuleError, load_differences, route_matches
from services.dev.parity.translate import Translator

STATUS = Request(name="1", method="GET", path="/api/executions/766820737834287572/status?full=true")
ROUTE = "GET /api/executions/{execution_id}/status"


def answer(body: str, status: int = 200, **headers: str) -> Answer:
    made = {key.replace("_", "-"): value for key, value in headers.items()}
    return Answer(status=status, headers={"content-type": "application/json", **made}, body=body.encode())


def places(one: Answer, two: Answer, **rules: Any) -> list[str]:
    return [finding.at for finding in compare(STATUS, one, two, **rules)]


def declared(**effects: Any) -> Difference:
    return Difference(id="d", routes=(ROUTE,), reason="r", reference="8", recordings=(), **effects)


@pytest.mark.parametrize(
    ("one", "two", "where"),
    [
        ('{"a":1}', '{"a":1}', []),
        ('{"a":1}', '{"a":2}', ["/a"]),
        ('{"a":1}', '{"a":"1"}', ["/a"]),
        ('{"a":1}', '{"a":1.0}', ["/a"]),
        ('{"a":1.0}', '{"a":1.00}', ["/a"]),
        ('{"a":true}', '{"a":1}', ["/a"]),
        ('{"a":null}', "{}", ["/a"]),
        ('{"a":1,"b":2}', '{"b":2,"a":1}', [" (order of keys)"]),
        ('{"a":[1]}', '{"a":[1,2]}', ["/a (length)"]),
        ('{"a":1}', '{"a": 1}', ["body (white space or escapes)"]),
        ('{"a":"é"}', '{"a":"\\u00e9"}', ["body (white space or escapes)"]),
        ("text", "other", ["body"]),
        ('{"a":1}', "text", ["body"]),
    ],
)
def test_every_byte_counts(one: str, two: str, where: list[str]) -> None:
    assert places(answer(one), answer(two)) == where


def test_status_and_promised_headers_count_and_the_servers_own_do_not() -> None:
    assert places(answer("1"), answer("1", status=500)) == ["status"]
    assert places(answer("1"), answer("1", retry_after="3")) == ["header retry-after"]
    assert places(answer("1"), answer("1", server="other", date="now")) == []
    one, two = answer("1", location="http://a:1/x?y=1"), answer("1", location="https://b/x?y=1")
    assert places(one, two) == []


@pytest.mark.parametrize(
    ("kind", "one", "two", "same"),
    [
        (MaskKind.TYPE, "1", "2.5", True),
        (MaskKind.TYPE, "1", "null", False),
        (MaskKind.TIME, '"2026-01-01T00:00:00Z"', '"2027-02-03T04:05:06Z"', True),
        (MaskKind.TIME, '"2026-01-01T00:00:00Z"', '"2026-01-01 00:00:00Z"', False),
        (MaskKind.ORDER, "[1,2]", "[2,1]", True),
        (MaskKind.ORDER, "[1,2]", "[2,2]", False),
        (MaskKind.ID, '"e/766820737834287572"', '"e/766820737834287573"', True),
        (MaskKind.ID, "766820737834287572", '"766820737834287572"', False),
        (MaskKind.ANY, "1", '"x"', True),
    ],
)
def test_a_mask_hides_no_more_than_it_says(kind: MaskKind, one: str, two: str, *, same: bool) -> None:
    mask = Mask(route=ROUTE, at="/a", kind=kind, reason="r")
    found = places(answer(f'{{"a":{one},"b":1}}'), answer(f'{{"a":{two},"b":1}}'), masks=[mask])
    assert (found == []) is same


def test_a_mask_for_what_runs_leaves_what_has_ended() -> None:
    mask = Mask(route=ROUTE, at="*/d", kind=MaskKind.TYPE, reason="r", while_running=True)
    one = answer('[{"end_time":null,"d":1},{"end_time":"t","d":1}]')
    two = answer('[{"end_time":null,"d":2},{"end_time":"t","d":2}]')
    assert places(one, two, masks=[mask]) == ["/1/d"]


def test_a_declared_difference_allows_just_itself() -> None:
    one, two = answer('{"a":1,"b":1}'), answer('{"a":2,"b":1,"c":3}')
    assert places(one, two) == ["/a", "/c"]
    assert places(one, two, differences=[declared(added=("/c",))]) == ["/a"]
    assert places(one, two, differences=[declared(added=("/c",), changed=(Change(at="/a"),))]) == []
    told = declared(added=("/c",), changed=(Change(at="/a", playhead=2, says=True),))
    assert places(one, two, differences=[told]) == []
    assert places(one, answer('{"a":3,"b":1,"c":3}'), differences=[told]) == ["/a"]
    conditional = declared(added=("/c",), changed=(Change(at="/a"),), when=(("b", 2),))
    assert places(one, two, differences=[conditional]) == ["/a", "/c"]


def test_a_declared_status_must_be_there_and_say_what_it_says() -> None:
    difference = declared(statuses=(500, 422), detail="the place")
    broken = answer("Detail: x", status=500)
    assert places(broken, answer('{"detail":"the place"}', status=422), differences=[difference]) == []
    assert places(broken, answer('{"detail":"else"}', status=422), differences=[difference]) == ["body"]
    assert places(broken, answer("{}", status=400), differences=[difference]) == ["status"]


@pytest.mark.parametrize(
    ("route", "path", "fits"),
    [
        ("GET /api/executions/{execution_id}", "/api/executions/1", True),
        ("GET /api/executions/{execution_id}", "/api/executions/1?page=2", True),
        ("GET /api/executions/{execution_id}", "/api/executions/1/status", False),
        ("POST /api/executions/{execution_id}", "/api/executions/1", False),
        ("* /api/executions/{execution_id}/*", "/api/executions/1/events", True),
        ("GET /api/catalog/{path}/ui_schema", "/api/catalog/a/b/ui_schema", True),
        ("GET /api/executions?*status=*", "/api/executions?page=1&status=FAILED", True),
        ("GET /api/executions?*status=*", "/api/executions?page=1", False),
    ],
)
def test_routes_are_matched_by_their_template(route: str, path: str, *, fits: bool) -> None:
    assert route_matches(route, Request(name="1", method="GET", path=path)) is fits


def test_minted_ids_are_learned_and_put_into_later_requests() -> None:
    names = Translator(minted_from=766_831_000_000_000_000)
    names.learn(answer('{"id":"766831464808710618","old":"1"}'), answer('{"id":"383965281434730496","old":"2"}'))
    asked = names.request(
        Request(name="1", method="GET", path="/x/766831464808710618", body='{"a":766831464808710618}')
    )
    assert (asked.path, asked.body) == ("/x/383965281434730496", '{"a":383965281434730496}')
    names.learn(answer('{"id":"766820737834287572"}'), answer('{"id":"383965281434730497"}'))
    assert names.text("766820737834287572") == "766820737834287572", "it stood in the database before"


def test_recordings_and_differences_that_cannot_be_used_say_where(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="0 recordings"):
        load_recordings(tmp_path)
    (tmp_path / "1.req.json").write_text('{"method": "GET"}')
    with pytest.raises(RecordingError, match=r"1\.req\.json"):
        load_recordings(tmp_path)
    with pytest.raises(RecordingError, match="status line"):
        parse_answer(b"nothing")
    file = tmp_path / "d.yaml"
    file.write_text("- id: a\n  routes: [x]\n")
    with pytest.raises(RuleError, match=r"entry 1.*reason"):
        load_differences(file)
    file.write_text("- {id: a, routes: [x], reason: r, reference: s}\n" * 2)
    with pytest.raises(RuleError, match="a stands twice"):
        load_differences(file)
