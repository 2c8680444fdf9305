"""Playbooks that the end-to-end tests run."""

LINEAR = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: linear, path: e2e/linear}
workload: {name: World, nested: {a: 1, b: 2}}
workflow:
  - step: start
    tool:
      kind: python
      input: {name: "{{ workload.name }}", nested: "{{ workload.nested }}"}
      code: |
        result = {"greeting": f"Hello, {name}!", "sum": nested["a"] + nested["b"]}
    next:
      arcs: [{step: finish, set: {ctx.seen: "{{ output.data.sum }}"}}]
  - step: finish
    tool:
      kind: python
      input: {greeting: "{{ start.greeting }}", seen: "{{ ctx.seen }}"}
      code: |
        result = {"message": greeting.upper(), "seen": seen}
"""

DIAMOND = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: diamond, path: e2e/diamond}
workflow:
  - step: start
    tool: {kind: noop}
    next: {spec: {mode: inclusive}, arcs: [{step: left}, {step: right}, {step: slow}]}
  - step: left
    tool: {kind: python, code: "result = {'side': 'left'}"}
    next: {arcs: [{step: join}]}
  - step: right
    tool: {kind: python, code: "result = {'side': 'right'}"}
    next: {arcs: [{step: join}]}
  - step: slow
    tool: {kind: shell, cmd: "sleep 0.1; echo slow"}
    next: {arcs: [{step: join}]}
  - step: join
    tool:
      kind: python
      input: {left: "{{ left.side }}", right: "{{ right.side }}"}
      code: |
        result = {"sides": [left, right]}
"""

FAILING = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: failing, path: e2e/failing}
workflow:
  - step: start
    tool: {kind: python, code: "raise ValueError('boom')"}
"""

HANDLED = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: handled, path: e2e/handled}
workflow:
  - step: start
    tool: {kind: python, code: "raise ValueError('boom')"}
    next:
      arcs:
        - {step: rescue, when: "{{ output.status == 'error' }}"}
        - {step: never}
  - step: rescue
    tool: {kind: python, code: "result = {'rescued': True}"}
  - step: never
    tool: {kind: noop}
"""

CHOICE = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: choice, path: e2e/choice}
workload: {amount: 5}
workflow:
  - step: start
    tool: {kind: noop}
    next:
      arcs:
        - {step: large, when: "{{ workload.amount > 10 }}"}
        - {step: small}
  - step: large
    tool: {kind: noop}
  - step: small
    tool: {kind: noop}
"""

SLEEPING = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: sleeping, path: e2e/sleeping}
workflow:
  - step: start
    tool: {kind: shell, cmd: "sleep 60"}
    next: {arcs: [{step: finish}]}
  - step: finish
    tool: {kind: noop}
"""

LARGE = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: large, path: e2e/large}
workflow:
  - step: start
    tool: {kind: python, code: "result = {'text': 'x' * 1_000_000, 'n': 7}"}
    next: {arcs: [{step: finish}]}
  - step: finish
    tool: {kind: python, input: {n: "{{ start.n }}"}, code: "result = {'n': n}"}
"""

HTTP = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: http, path: e2e/http}
workload: {url: ""}
workflow:
  - step: start
    tool: {kind: http, method: GET, url: "{{ workload.url }}/api/health"}
    next: {arcs: [{step: finish}]}
  - step: finish
    tool: {kind: python, input: {answer: "{{ start }}"}, code: "result = {'seen': str(answer)}"}
"""

INJECTION = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: injection, path: e2e/injection}
workflow:
  - step: start
    tool: {kind: python, code: "result = {'text': '{' + '{ keychain.db.password }} {' + '{ 1 + 1 }}'}"}
    next: {arcs: [{step: finish}]}
  - step: finish
    tool: {kind: python, input: {text: "{{ start.text }}"}, code: "result = {'text': text}"}
"""
