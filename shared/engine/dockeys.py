"""The keys of a playbook outside its tools, each with what it means: for the parser, the JSON Schema and the documentation.

The keys of tools are in `toolkeys`. Both are the union of the dialects (engine_spec.md section 1); what is accepted and not run
says so.
"""

from __future__ import annotations

ROOT = {
    "apiVersion": "version of the language: noetl.io/v2 (v1 and v10 run the same way)",
    "kind": "Playbook, or Agent for one that other programs call",
    "metadata": "name, path and what readers want to know",
    "executor": "settings of the whole execution: {spec: {entry_step, on_error, timeout, strict}}",
    "workload": "default values of the execution's input; the payload goes over them",
    "keychain": "credentials by name, resolved by the worker: a list of {name, kind, ...}",
    "workbook": "named tools that several steps use: a list of {name, tool}",
    "workflow": "the steps",
    "name": "the same as metadata.name",
    "path": "the same as metadata.path",
    "version": "for readers; the catalog numbers versions itself",
    "description": "for readers",
    "credentials": "accepted, not run: name a credential with `auth`",
    "spec": "accepted, not run",
}
METADATA = {
    "name": "name of the playbook",
    "path": "catalog path; without one, the name",
    "description": "for readers",
    "tags": "for readers: a list or text",
    "labels": "for readers: a mapping",
    "version": "for readers; the catalog numbers versions itself",
    "exposed_in_ui": "true: the GUI lists it",
    "exposes_as_mcp": "true: offered as an MCP tool",
    "agent": "true: it can act as an agent",
    "capabilities": "what an agent can do, by which it is found: a list or text",
    "inline_when_safe": "accepted, not run",
}
EXECUTOR = {
    "spec": "the keys below, too",
    "entry_step": "the first step; without one, the step named `start`, else the first of the list",
    "on_error": "what an error does that no arc handles: stop (ends its branch), continue (goes on over arcs without `when`), "
    "fail_fast (ends the execution at once)",
    "timeout": 'time that an execution may take, like "30m"',
    "strict": "true: warnings keep the playbook from registering, and a template that misses a name fails its step",
    "execution_pool": "worker pool of every step that names none",
    "profile": "accepted, not run",
    "version": "accepted, not run",
    "requires": "accepted, not run",
    "kind": "accepted, not run",
    "final_step": "accepted, not run: an execution ends when nothing is left to do",
    "no_next_is_error": "accepted, not run",
    "policy": "accepted, not run",
}
STEP = {
    "step": "name of the step, once per playbook",
    "name": "the same as `step`",
    "desc": "for readers",
    "description": "for readers",
    "when": "condition to run the step; when false, it is skipped and so are its arcs",
    "tool": "what to run: one tool, or a list of tasks that run one after the other; without one, the step only routes",
    "loop": "run the tool once per item of a collection, or per row that a cursor claims",
    "input": "values for the tool, as names; over those of the tool",
    "args": "the same as `input`",
    "set": "variables to set from the result, before the arcs: {ctx.total: ...}",
    "next": "where to go: {spec: {mode}, arcs: [{step, when, set}]}, a step's name, or a list",
    "spec": "retry, timeout, admission: {retry, timeout, on_item_error, policy}",
    "output": "{select, inline_max_bytes, store}: the same as tool.output",
    "execution_pool": "worker pool that runs the step",
}
STEP_OBSOLETE = {
    "case": "use next.arcs[].when",
    "sink": "add a step or a task that writes",
    "save": "add a step or a task that writes",
    "vars": "use `set`",
    "retry": "put it under `spec.retry`, or use policy rules with `do: retry`",
    "type": "use tool.kind",
    "command": "put it under `tool`",
    "eval": "use spec.policy.rules of the tool",
    "set_ctx": "use `set` with keys ctx.<name>",
    "set_iter": "use `set` with keys iter.<name>",
    "result": "use `set` or tool.output",
    "outcome": "use next.arcs[].when with `output`",
}
STEP_SPEC = {
    "retry": "run the step again when it fails: {attempts, backoff, delay, max_delay, jitter, on}, or a number of attempts",
    "timeout": 'time that one run of the step may take, like "30s"; then it fails',
    "on_item_error": "what a failed item of the loop does: fail (the default) or continue",
    "on_error": "accepted, not run: use an arc with `when` on `output`",
    "next_mode": "the same as next.spec.mode",
    "policy": "{admit: {rules: [{when, then: {allow}}]}}: whether the step may run at all",
    "pool": "the same as `execution_pool`",
    "execution_pool": "worker pool that runs the step",
    "lifecycle": "accepted, not run",
    "failure": "accepted, not run",
    "emit": "accepted, not run",
}
RETRY = {
    "attempts": "tries in all, the first one included; default 3",
    "backoff": "how the delay grows: none, fixed, linear or exponential (the default)",
    "delay": "before the second try: seconds, or text like 500ms; default 1 s",
    "max_delay": "the longest delay",
    "jitter": "share of the delay, 0 to 1, that is random",
    "on": "condition: try again only when it holds",
}
LOOP = {
    "in": "the collection: a list, a mapping ({key, value} items), a number n (0 to n-1), or a template of one",
    "in_": "the same as `in`",
    "iterator": "name of the variable that has the item",
    "spec": "{mode, max_in_flight, on_item_error, frame}",
    "cursor": "claims rows of a table instead of a collection: {kind: postgres, auth, claim}",
}
LOOP_SPEC = {
    "mode": "sequential (the default), parallel or cursor",
    "max_in_flight": "items at once of a parallel loop, or slots of a cursor; default 10",
    "on_item_error": "what a failed item does: fail (the default) or continue",
    "frame": "of a cursor: {max_rows, max_seconds, process, row_concurrency, ...}",
    "policy": "accepted, not run",
}
CURSOR = {
    "kind": "postgres",
    "auth": "credential that has the connection",
    "claim": "statement that claims rows and returns them: UPDATE ... RETURNING",
    "options": "accepted",
}
ROUTER = {"spec": "{mode, on_no_match}", "arcs": "the ways on, in order"}
ROUTER_SPEC = {
    "mode": "exclusive (the first arc that holds, the default) or inclusive (every arc that holds)",
    "on_no_match": "complete or quiet: either way the branch ends",
}
ARC = {
    "step": "name of the next step; `end` ends the branch when no step has that name",
    "when": "condition; without one, the arc always holds",
    "set": "variables to set when the arc is taken: {ctx.total: ...}",
    "args": "the same as `set`",
    "desc": "for readers",
    "description": "for readers",
}
TOOL_SPEC = {
    "policy": "{rules: [{when, then: {do}}]}: what to do with the outcome",
    "timeout": "seconds at most",
    "retry": "accepted, not run: use policy rules with `do: retry`",
    "pool": "worker pool",
    "execution_pool": "worker pool",
    "output": "the same as tool.output",
}
TOOL_OBSOLETE = {
    "eval": "use spec.policy.rules",
    "retry": "use spec.policy.rules with `do: retry`",
    "case": "use spec.policy.rules",
    "sink": "add a task that writes after this one",
    "save": "add a task that writes after this one",
    "vars": "use `set`",
    "assert": "use spec.policy.rules with `do: fail`",
}
RULE = {
    "when": "condition on `output`; the first rule that holds counts",
    "then": "{do, ...}: what to do",
    "else": "{then: {do, ...}}: what to do when no rule before holds",
    "name": "for readers",
    "desc": "for readers",
    "description": "for readers",
}
THEN = {
    "do": "continue (next task), retry, jump, break (end the sequence) or fail",
    "to": "of jump: the task to go to",
    "set": "variables to set: {ctx.page: ...} stay, {iter.page: ...} are of this item",
    "attempts": "of retry: tries in all; default 3",
    "backoff": "of retry: none, fixed, linear or exponential",
    "delay": "of retry: seconds before the next try; default 1",
    "max_delay": "of retry: the longest delay",
    "reason": "of fail: why",
    "message": "of fail: why",
    "error": "of fail: why",
}
OUTPUT = {
    "select": "what of a large result stays at hand: a list of {path, as}",
    "store": "where a large result is kept: {kind, ttl, ...}",
    "inline_max_bytes": "a larger result goes by reference",
    "preview_max_bytes": "accepted",
    "accumulate": "accepted",
    "scope": "how long a stored result lives: step, execution, workflow or permanent",
    "as": "accepted",
}
WORKBOOK = {
    "name": "name of the action",
    "tool": "the tool: {kind, ...}",
    "desc": "for readers",
    "description": "for readers",
    "assert": "accepted, not run",
}
