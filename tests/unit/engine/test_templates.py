"""What a template gives, and what it cannot do: one row per rule, each with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from shared.engine import LOST, NeedsDataError, TemplateError, loaded, render_condition, render_value, result_ref
from shared.engine.references import as_result
from shared.engine.templates import check_template, names_in, names_keychain, watching

NAMES: dict[str, Any] = {
    "n": 5,
    "s": "007",
    "yes": True,
    "nothing": None,
    "text": '{"a": 1}',
    "braces": "{{ n }}",
    "list": [3, 1, 2],
    "rows": [{"n": 1, "name": "a"}, {"n": 2, "name": "b"}],
    "object": {"items": 9, "b": {"c": [1, 2]}, "none": None},
    "workload": {"n": 5, "list": [1, 2]},
    "step": as_result({"n": 7, "status": "ok"}),
    "loop_step": as_result({"results": [1, 2], "stats": {"total": 2}}),
    "iter": {"_index": 3, "item": {"x": 1}},
}


@pytest.mark.parametrize(
    ("reason", "template", "expected"),
    [
        ("a lone expression keeps its type", "{{ n }}", 5),
        ("also with filters", "{{ list | sort }}", [1, 2, 3]),
        ("also with operators", "{{ n + 1 }}", 6),
        ("also with white space around it", "  {{ n }}\n", 5),
        ("also a mapping", "{{ object.b }}", {"c": [1, 2]}),
        ("also a boolean", "{{ n > 3 }}", True),
        ("also when braces meet", "{{ {'a': {'b': n}}}}", {"a": {"b": 5}}),
        ("also when braces are text", "{{ '}} {{' }}", "}} {{"),
        ("also with marks of white space", "{{- list -}}", [3, 1, 2]),
        ("text of digits stays text", "{{ s }}", "007"),
        ("also through a filter", "{{ s | string }}", "007"),
        ("also when two expressions make it", "{{ n }}{{ n }}", "55"),
        ("mixed text is never a number", "{{ s }}1", "0071"),
        ("mixed text is never a boolean", "{{ yes }} ", True),
        ("mixed text is never null", "{{ 'no' }}ne", "none"),
        ("mixed text of an expression and a literal is text", "tr{{ 'ue' }}", "true"),
        ("text that a lone expression gives is not parsed", "{{ text }}", '{"a": 1}'),
        ("mixed text that is a whole object is parsed", '{"a": {{ n }}}', {"a": 5}),
        ("and a whole list", "[{{ n }}, 1]", [5, 1]),
        ("text that only starts like a list is text", "[{{ n }}", "[5"),
        ("text that only looks like JSON is text", "{a {{ n }}}", "{a 5}"),
        ("text without a template is not touched", '{"a": 1}', '{"a": 1}'),
        ("undefined is null alone", "{{ nowhere }}", None),
        ("an attribute of undefined is undefined", "{{ nowhere.to.be['found'] }}", None),
        ("an attribute of null is undefined", "{{ nothing.x }}", None),
        ("undefined is empty in text", "<{{ nowhere.x }}>", "<>"),
        ("default replaces undefined", "{{ nowhere.x | default(3) }}", 3),
        ("default replaces null", "{{ nothing | default(3) }}", 3),
        ("d is default", "{{ nothing | d('x') }}", "x"),
        ("default keeps zero", "{{ 0 | default(3) }}", 0),
        ("default with true replaces what is empty", "{{ '' | default('x', true) }}", "x"),
        ("default without an argument is empty text", "{{ nowhere | default }}", ""),
        ("a key wins over a method", "{{ object.items }}", 9),
        ("a method works where there is no such key", "{{ object.b.items() | list }}", [["c", [1, 2]]]),
        ("a name with an underscore is data", "{{ iter._index }}", 3),
        ("a step's data is itself", "{{ step.data.n }}", 7),
        ("a step has the alias context", "{{ step.context.n }}", 7),
        ("a loop's data are its results", "{{ loop_step.data }}", [1, 2]),
        ("a loop's results by index", "{{ loop_step.results[1] }}", 2),
        ("a list counts its items", "{{ list | length }}", 3),
        ("undefined counts none", "{{ nowhere | length }}", 0),
        ("a statement makes text", "{% if n %}x{% endif %}", "x"),
        (
            "a template of Go's is for the command",
            "ps --format '{{.Names}} {{ .ID }}'",
            "ps --format '{{.Names}} {{ .ID }}'",
        ),
        ("also alone", "{{.Names}}", "{{.Names}}"),
        ("also beside one of ours", "inspect {{ n }} {{.State}}", "inspect 5 {{.State}}"),
        ("also its loops", "{{range .items}}{{.x}}{{end}}", "{{range .items}}{{.x}}{{end}}"),
        ("a step may be called end all the same", "{{ end | default(1) }}", 1),
        ("a loop makes text", "{% for i in list %}{{ i }};{% endfor %}", "3;1;2;"),
        ("filter int gives 0 for junk", "{{ 'x' | int }}", 0),
        ("filter int", "{{ '7' | int + 1 }}", 8),
        ("filter float", "{{ '1.5' | float }}", 1.5),
        ("filter lower", "{{ 'AB' | lower }}", "ab"),
        ("filter upper", "{{ 'ab' | upper }}", "AB"),
        ("filter trim", "{{ ' a ' | trim }}", "a"),
        ("filter split", "{{ 'a,b' | split(',') }}", ["a", "b"]),
        ("filter join", "{{ list | join('-') }}", "3-1-2"),
        ("filter join by attribute", "{{ rows | join(',', attribute='name') }}", "a,b"),
        ("filter first", "{{ list | first }}", 3),
        ("filter last", "{{ list | last }}", 2),
        ("filter keys", "{{ object.b | keys }}", ["c"]),
        ("filter values", "{{ object.b | values }}", [[1, 2]]),
        ("filter items", "{{ object.b | items | list }}", [["c", [1, 2]]]),
        ("filter get", "{{ object | get('x', 4) }}", 4),
        ("filter safe", "{{ 'a' | safe }}", "a"),
        ("filter replace", "{{ 'aab' | replace('a', 'x') }}", "xxb"),
        ("filter len", "{{ list | len }}", 3),
        ("filter tojson gives text", "{{ object.b | tojson }}", '{"c":[1,2]}'),
        ("filter tojson takes what is undefined", "{{ nowhere | tojson }}", "null"),
        ("filter fromjson", "{{ text | fromjson }}", {"a": 1}),
        ("filter b64encode", "{{ 'a' | b64encode }}", "YQ=="),
        ("filter b64decode", "{{ 'YQ==' | b64decode }}", "a"),
        ("filter map", "{{ rows | map(attribute='n') | list }}", [1, 2]),
        ("filter selectattr", "{{ rows | selectattr('n', 'gt', 1) | list }}", [{"n": 2, "name": "b"}]),
        ("filter sum", "{{ rows | sum(attribute='n') }}", 3),
        ("filter batch", "{{ list | batch(2, 0) | list }}", [[3, 1], [2, 0]]),
        ("filter format", "{{ '%05.1f' | format(1.25) }}", "001.2"),
        ("filter indent", "{{ 'a\nb' | indent(2) }}", "a\n  b"),
        ("filter random depends on nothing but the decision", "{{ [4] | random }}", 4),
        ("method format", "{{ '{:>3}|{a}'.format(1, a=2) }}", "  1|2"),
        ("operator %", "{{ '%03d' % 7 }}", "007"),
        ("test defined", "{{ nowhere is defined }}", False),
        ("test undefined", "{{ nowhere.x is undefined }}", True),
        ("test none", "{{ nothing is none }}", True),
        ("test string", "{{ s is string }}", True),
        ("test number", "{{ n is number }}", True),
        ("test sequence", "{{ list is sequence }}", True),
        ("test mapping", "{{ object is mapping }}", True),
        ("keychain is left to the worker", "Bearer {{ keychain.a.token }}", "Bearer {{ keychain.a.token }}"),
        ("a token too", "{{ token('a') }}", "{{ token('a') }}"),
        ("a name that only has it in it is ours", "{{ tokens | default(1) }}", 1),
        ("data that looks like a template stays data", "{{ braces }}", "{{ n }}"),
    ],
)
def test_a_template_gives(reason: str, template: str, expected: Any) -> None:
    found = render_value(template, NAMES)
    assert (type(found), found) == (type(expected), expected), reason


def test_templates_are_rendered_at_every_depth_and_keys_are_left_alone() -> None:
    given = {"{{ n }}": ["{{ n }}", {"a": "{{ list[0] }}", "b": 1.5, "c": None}]}
    assert render_value(given, NAMES) == {"{{ n }}": [5, {"a": 3, "b": 1.5, "c": None}]}


@pytest.mark.parametrize(
    ("reason", "condition", "holds"),
    [
        ("a lone expression", "{{ n > 3 }}", True),
        ("an expression without braces", "n > 3 and list", True),
        ("undefined is false", "{{ nowhere }}", False),
        ("undefined without braces is false", "nowhere.at.all", False),
        ("null is false", "{{ nothing }}", False),
        ("an empty list is false", "{{ [] }}", False),
        ("the text false is false", "{{ 'False' }}", False),
        ("the text 0 is false", "0{{ '' }}", False),
        ("the text no is false", "{{ 'no' }}", False),
        ("the text none is false", "{{ 'None' }}", False),
        ("empty text is false", "{{ '' }}", False),
        ("text around a value is text, and true", "x{{ nowhere }}", True),
        ("a statement that makes true", "{% if n %}true{% else %}false{% endif %}", True),
        ("a statement that makes false", "{% if n > 9 %}true{% else %}false{% endif %}", False),
        ("undefined equals nothing", "{{ nowhere == 'x' }}", False),
        ("undefined is not more", "{{ nowhere > 3 }}", False),
        ("undefined is not less", "{{ nowhere < 3 }}", False),
        ("nothing is more than undefined", "{{ 3 >= nowhere }}", False),
        ("another part of the condition counts", "{{ nowhere > 3 or n == 5 }}", True),
        ("undefined is not something", "{{ nowhere != 'x' }}", True),
    ],
)
def test_a_condition_holds(reason: str, condition: str, holds: bool) -> None:
    assert render_condition(condition, NAMES) is holds, reason


def growing(expression: str, start: Any) -> str:
    """Return a template that applies `expression` sixty times."""
    head = "{%% set x = namespace(v=%r) %%}{%% for i in range(60) %%}" % (start,)
    return head + "{% set x.v = " + expression + " %}{% endfor %}"


@pytest.mark.parametrize(
    ("reason", "template", "said"),
    [
        ("division by zero", "{{ 1 / (n - 5) }}", "division"),
        ("arithmetic with undefined", "{{ nowhere + 1 }}", "nowhere"),
        ("a comparison of what has no order", "{{ n < 'x' }}", "not supported"),
        ("text that is no JSON", "{{ 'x' | fromjson }}", "unexpected"),
        ("a function instead of its value", "{{ s.upper }}", "function"),
        ("an integer over 64 bits", "{{ 2 ** 64 }}", "64 bits"),
        ("an attribute with an underscore", "{{ s.__class__.__mro__ }}", "unsafe"),
        ("the same by item", "{{ s['__class__'].__mro__ }}", "unsafe"),
        ("the globals of a function", "{{ range.__globals__['os'] }}", "unsafe"),
        ("changing data", "{{ list.append(1) }}", "unsafe"),
        ("reading a file", "{% include '/etc/passwd' %}", "no loader"),
        ("a filter that would need a key", "{{ s | encrypt_secret }}", "credential"),
        ("range over the bound", "{{ range(10**9) | list }}", "range()"),
        ("ranges within ranges", "{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}", "range()"),
        ("text times a number", "{{ 'x' * 10**9 }}", "more than"),
        ("a list times a number", "{{ [0] * 10**9 }}", "more than"),
        ("a tower of powers", "{{ 9 ** (9 ** 9) }}", "exponent"),
        ("squares of squares", growing("x.v * x.v", 3), "bits"),
        ("a list that doubles", growing("x.v + x.v", [0]), "more than"),
        ("text that doubles", growing("x.v ~ x.v", "x"), "more than"),
        ("text that doubles by +", growing("x.v + x.v", "x"), "more than"),
        ("few lists that stand for many values", "{{ [[[0] * 1000] * 1000] * 1000 }}", "values"),
        ("the same as text", "a{{ [[[0] * 1000] * 1000] * 1000 }}", "values"),
        ("the same as JSON", "{{ ([[[0] * 1000] * 1000] * 1000) | tojson }}", "values"),
        ("the same joined", "{{ ([[[0] * 1000] * 1000] * 1000) | join }}", "values"),
        ("a macro that calls itself", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("calls that fan out", "{% macro f(n) %}{% if n %}{{ f(n-1) ~ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}", "calls"),
        ("a for over data in a for over data", "{% for i in many %}{% for j in many %}{% endfor %}{% endfor %}", "rounds"),
        ("a filter over data in a for over data", "{% for i in many %}{{ many | sum }}{% endfor %}", "rounds"),
        ("a generator without end in sight", "{{ [1] | slice(10**9) | list }}", "rounds"),
        ("the same without a list", "{{ [1] | slice(10**9) }}", "rounds"),
        ("constants are not evaluated while compiling", "{{ [1] | slice(1000000000) | list }}", "rounds"),
        ("a batch that is filled", "{{ [1] | batch(10**9, 0) | list }}", "more than"),
        ("filter center", "{{ 'x' | center(10**9) }}", "more than"),
        ("method center", "{{ 'x'.center(10**9) }}", "more than"),
        ("method expandtabs by name", "{{ '\t'.expandtabs(tabsize=10**9) }}", "more than"),
        ("filter indent", "{{ 'a\nb' | indent(10**9) }}", "more than"),
        ("filter format", "{{ '%999999999d' | format(1) }}", "more than"),
        ("filter format with a width among its arguments", "{{ '%*d' | format(10**9, 1) }}", "more than"),
        ("operator % with a width", "{{ '%999999999d' % 1 }}", "more than"),
        ("operator % with a width among its arguments", "{{ '%*d' % (10**9, 1) }}", "more than"),
        ("method format with a width", "{{ '{:>999999999}'.format(1) }}", "more than"),
        ("method format with a width among its arguments", "{{ '{:{w}}'.format(1, w=10**9) }}", "more than"),
        ("method join", "{{ ('x' * 100000).join(['', '', '', '', '', '', '', '', '', '', '', '', '']) }}", "more than"),
        ("filter join", "{{ (['x' * 100000] * 100) | join }}", "more than"),
        ("method replace", "{{ ('x' * 10000).replace('x', 'y' * 1000) }}", "more than"),
        ("filter replace", "{{ ('x' * 10000) | replace('x', 'y' * 1000) }}", "more than"),
        ("bytes of a number", "{{ (1).to_bytes(10**9, 'big') }}", "no method"),
        ("bytes times a number", "{{ 'x'.encode() * 10**9 }}", "more than"),
        ("nested too deeply", "{{ " + "[" * 70 + "]" * 70 + " }}", "deep"),
        ("a source that is too long", "{{ n }}" + "x" * 70_000, "at most 65536"),
    ],
)  # fmt: skip
def test_a_template_fails_by_name_within_its_bounds(reason: str, template: str, said: str) -> None:
    with pytest.raises(TemplateError) as caught:
        render_value(template, {**NAMES, "many": list(range(5000))})
    assert said in str(caught.value), reason
    assert len(str(caught.value)) < 1000, reason


@pytest.mark.parametrize(
    ("reason", "template"),
    [
        ("too many blocks for Python", "{% for i in x %}" * 30 + "{% endfor %}" * 30),
        ("too many parentheses for Python", "{{ " + "(" * 300 + "1" + ")" * 300 + " }}"),
        ("deeper than the parser goes", "{{ " + "(" * 30_000 + "1" + ")" * 30_000 + " }}"),
        ("no expression", "{{ 1 + }}"),
        ("an unknown filter", "{{ x | nothing_like_it }}"),
        ("an unknown test", "{{ x is nothing_like_it }}"),
        ("an open block", "{% if x %}"),
    ],
)
def test_a_template_that_cannot_be_compiled_is_found_before_it_runs(reason: str, template: str) -> None:
    said = check_template(template)
    if said is not None:
        with pytest.raises(TemplateError):
            render_value(template, NAMES)
    else:  # this Python can compile it
        assert reason == "too many parentheses for Python"


def test_what_is_large_and_honest_is_rendered() -> None:
    rows = [{"id": index, "name": f"n{index}", "tags": ["a", "b"]} for index in range(100_000)]
    assert render_value("{{ rows }}", {"rows": rows}) == rows
    assert render_value("{{ rows | length }}", {"rows": rows}) == 100_000
    assert render_value("{{ rows | map(attribute='id') | sum }}", {"rows": rows}) == sum(range(100_000))


def test_the_templates_of_one_decision_have_a_bound_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.engine.budget.DECISION_TEMPLATE_RATIO_MAX", 1)
    many = {"many": list(range(60_000))}
    costly = "{% for i in range(10) %}{% for j in many %}{% endfor %}{% endfor %}"
    with watching():
        render_value(costly, many)
        with pytest.raises(TemplateError, match="all templates of the decision"):
            render_value(costly, many)
    assert render_value("{{ many | length }}", many) == 60_000, "the next decision has its own"


# --- what is not defined ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "template", "names"),
    [
        ("alone", "{{ nowhere }}", ["nowhere"]),
        ("an attribute", "{{ object.x }}", ["object.x"]),
        ("in text", "<{{ nowhere }}>", ["nowhere"]),
        ("in a condition of a statement", "{% if nowhere %}x{% endif %}", ["nowhere"]),
        ("in a loop", "{% for i in nowhere %}x{% endfor %}", ["nowhere"]),
        ("compared", "{{ nowhere == 1 }}", ["nowhere"]),
        ("default asks whether it is there", "{{ nowhere | default(1) }}", []),
        ("a test asks whether it is there", "{{ nowhere is defined }}", []),
        ("null is defined", "{{ nothing }}", []),
        ("keychain is not ours", "{{ keychain.a.b }}", []),
    ],
)
def test_each_miss_is_counted_and_an_error_when_strict(reason: str, template: str, names: list[str]) -> None:
    with watching() as found:
        render_value(template, NAMES)
    assert found.missed == names, reason
    with watching(strict=True):
        if not names:
            render_value(template, NAMES)
            return
        with pytest.raises(TemplateError, match="undefined"):
            render_value(template, NAMES)


def test_a_condition_that_asks_for_what_is_not_defined_is_an_error_when_strict() -> None:
    with watching(strict=True), pytest.raises(TemplateError, match="nowhere"):
        render_condition("nowhere", NAMES)


# --- results by reference ---------------------------------------------------------------------------------------------

REFERENCE = result_ref({"locator": "noetl://x", "bytes": 9}, {"n": 7, "status": "ok"})
WHOLE = {"n": 7, "status": "ok", "rows": [1, 2, 3], "text": "abc"}


@pytest.mark.parametrize(
    ("reason", "template", "expected"),
    [
        ("a scalar is at hand", "{{ big.n }}", 7),
        ("its status too", "{{ big.status == 'ok' }}", True),
        ("so is the reference", "{{ big._ref }}", "noetl://x"),
        ("default finds it", "{{ big.n | default(1) }}", 7),
    ],
)
def test_what_stands_beside_a_reference_needs_no_loading(reason: str, template: str, expected: Any) -> None:
    assert render_value(template, {"big": REFERENCE}) == expected, reason


@pytest.mark.parametrize(
    ("reason", "template", "expected"),
    [
        ("a member", "{{ big.rows }}", [1, 2, 3]),
        ("by item", "{{ big['rows'][1] }}", 2),
        ("through data", "{{ big.data.rows | length }}", 3),
        ("with get", "{{ big.get('rows') }}", [1, 2, 3]),
        ("its keys", "{{ big | keys }}", ["n", "status", "rows", "text"]),
        ("its keys by method", "{{ big.keys() | list }}", ["n", "status", "rows", "text"]),
        ("counted", "{{ big | length }}", 4),
        ("as a whole", "{{ big }}", WHOLE),
        ("as JSON", "{{ (big | tojson | fromjson).text }}", "abc"),
        ("in text", "{% for r in big.rows %}{{ r }}{% endfor %}", "123"),
        ("in a loop", "{% for k in big %}{{ k }},{% endfor %}", "n,status,rows,text,"),
        ("what is not there", "{{ big.nowhere | default(4) }}", 4),
    ],
)
def test_a_template_reaches_into_a_reference(reason: str, template: str, expected: Any) -> None:
    with pytest.raises(NeedsDataError) as needed:
        render_value(template, {"big": REFERENCE})
    assert needed.value.locator == "noetl://x", reason
    with loaded({"noetl://x": WHOLE}):
        assert render_value(template, {"big": REFERENCE}) == expected, reason
    with loaded({"noetl://x": LOST}), pytest.raises(TemplateError, match=r"noetl://x does not exist or has expired"):
        render_value(template, {"big": REFERENCE})


# --- what a template names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "names"),
    [("{{ a.b + c['d'] }}", {"a", "c"}), ("event.name == 'x'", {"event"}), ("{{ 1 + }}", set()), ("text", {"text"})],
)
def test_the_names_of_a_template(template: str, names: set[str]) -> None:
    assert names_in(template) == names


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{{ keychain.a }}", True),
        ("{% if keychain.a %}", True),
        ("{{ token('x') }}", True),
        ("keychain", False),
        ("{{ my_keychain }}", False),
        ("token(x) {{ n }}", False),
    ],
)
def test_what_is_left_to_the_worker(text: str, found: bool) -> None:
    assert names_keychain(text) is found
