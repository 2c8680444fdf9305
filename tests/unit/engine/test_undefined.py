"""Names in templates that nothing defines are warned of; what the author has thought of, and what may come, is not."""

from __future__ import annotations

import pytest

from shared.engine import check_playbook

DOCUMENT = """apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: x}
workload: {amount: 1}
workflow:
- step: start
  loop: {in: [1], iterator: city}
  tool:
  - {name: fetch, kind: noop, set: {ctx.seen: 1}, spec: {policy: {rules: [{then: {do: continue, set: {iter.page: 1}}}]}}}
  - {name: use, kind: python, input: {given: "TEMPLATE"}, code: "x = {{ not_a_template }}"}
  next: {arcs: [{step: b, when: "CONDITION", set: {ctx.total: 1}}]}
- step: b
  tool: {kind: noop}
"""


def warnings(template: str = "", condition: str = "{{ true }}") -> list[str]:
    playbook, problems = check_playbook(DOCUMENT.replace("TEMPLATE", template).replace("CONDITION", condition))
    assert playbook is not None, problems
    return [problem.message for problem in problems]


@pytest.mark.parametrize(
    "template",
    [
        "{{ amount }}",
        "{{ workload.of_a_payload }}",
        "{{ start.x }} {{ steps.b }} {{ b.y }}",
        "{{ city }} {{ iter.city }} {{ loop_index }} {{ _index }}",
        "{{ fetch.rows }} {{ _prev }} {{ use }} {{ _attempt }}",
        "{{ total + seen + page }} {{ given }}",
        "{{ output.data }} {{ execution_id }} {{ job.uuid }} {{ keychain.token.x }}",
        "{{ nobody | default(1) }}",
        "{{ nobody.deep | d('x') }}",
        "{{ nobody is defined }} {{ nobody }}",
        "{{ nobody or amount }}",
        "{{ 1 if nobody else 2 }}",
        "{% if nobody %}{{ nobody.x }}{% endif %}",
        "{% for x in range(3) %}{{ x }}{{ loop.index }}{% endfor %}",
        "{% set mine = 1 %}{{ mine }}",
        "{{ now() }} {{ len(amount) }}",
        "no braces nobody",
    ],
)
def test_a_name_that_is_known_or_thought_of_is_no_finding(template: str) -> None:
    assert warnings(template) == []


@pytest.mark.parametrize(
    "template", ["{{ amuont }}", "{{ amuont.x + 1 }}", "a {{ amuont | int }} b", "{{ amount or amuont }}"]
)
def test_a_name_that_nothing_defines_is_a_warning(template: str) -> None:
    assert warnings(template) == [
        "nothing in this playbook defines 'amuont': give it a value in `workload`, or a default; did you mean 'amount'?"
    ]


@pytest.mark.parametrize("condition", ["{{ strat.ok }}", "strat.ok", "{{ strat.ok == 1 and amount }}"])
def test_conditions_are_looked_at_with_and_without_braces(condition: str) -> None:
    assert [text.partition(":")[0] for text in warnings(condition=condition)] == [
        "nothing in this playbook defines 'strat'"
    ]
