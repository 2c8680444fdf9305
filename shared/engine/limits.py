"""Every bound of the engine, with its unit and reason."""

from __future__ import annotations

PLAYBOOK_BYTES_MAX = 1_048_576  # text of one playbook; the largest of the original's 162 fixtures has 60 KiB
PLAYBOOK_NODES_MAX = 100_000  # YAML nodes with aliases expanded: a few lines of aliases can stand for billions
STEPS_MAX = 1000  # steps of one playbook
ARCS_MAX = 1000  # arcs of one step
NAME_CHARS_MAX = 256  # a step name
PROBLEMS_MAX = 50  # problems reported for one playbook

ENVELOPE_BYTES_MAX = 262_144  # event envelope on NATS (its server takes 1 MiB); beyond, it travels elided
RESULT_BYTES_MAX = 65_536  # result copied into the terminal events and the status document
RENDER_CONTEXT_BYTES_MAX = 65_536  # step results sent along with a command; beyond, only those it names

TEMPLATE_CHARS_MAX = 65_536  # source of one template
TEMPLATE_OUTPUT_CHARS_MAX = 1_048_576  # text that one template makes
TEMPLATE_RANGE_MAX = 100_000  # items that all range() calls of one rendering make
TEMPLATE_POWER_MAX = 1024  # exponent of `**`
DECISION_TEMPLATE_RATIO_MAX = 10  # all templates of one decision may use so many times what one may: some seconds
TEMPLATE_INTEGER_BITS_MAX = 65_536  # of an integer that arithmetic makes
TEMPLATE_VALUES_MAX = 3_000_000  # members of lists and mappings that one rendering makes into text or a result
TEMPLATE_MISSES_MAX = 20  # undefined names that one decision tells
TEMPLATE_CACHE_MAX = 4096  # compiled templates kept per process
VALUE_DEPTH_MAX = 64  # nesting of a rendered value

TEMPLATE_LOOP_STEPS_MAX = (
    1_000_000  # rounds of loops, calls, items that filters walk over in one rendering: about a second
)
REFERENCES_PER_DECISION_MAX = 64  # large results that one decision may load

LOOP_ITEMS_MAX = 1_000_000  # items of one loop; ten times what the language promises
LOOP_IN_FLIGHT_DEFAULT = 10  # of a parallel loop that does not say (engine_decisions.md, Loops)
LOOP_IN_FLIGHT_MAX = 1000  # commands of one loop at once
LOOP_RESULTS_BYTES_MAX = 4 << 20  # item results kept in the state; beyond, the loop's result is a reference to the log
DECISION_COMMANDS_MAX = 1000  # commands of one decision; a loop goes on with the next
DECISION_BYTES_MAX = 4 << 20  # command contexts of one decision, about half of what a commit may have
TASKS_MAX = 200  # tasks of one sequence
CHILD_DEPTH_MAX = 16  # generations of sub-playbooks: one that calls itself must end
RETRY_ATTEMPTS_MAX = 1000  # of one command
RETRY_DELAY_SECONDS_MAX = 86_400.0 * 7  # between two attempts: a week
RETRY_DELAY_SECONDS = 1.0  # without `delay`; the original's default in policies
TIMEOUT_SECONDS_MAX = 86_400.0 * 366  # of a step or an execution: a year
LOOP_CONTEXT_BYTES_MAX = 4096  # data of the execution that travels with each item of a loop; beyond, only what it names
CONTEXT_NAME_BYTES_MAX = 262_144  # one name of the workload that travels with a command; larger goes by reference
SNAPSHOT_EVENTS_MIN = 1000  # events between two snapshots at least
SNAPSHOT_BYTES_MAX = 32 << 20  # a larger state is folded from an older snapshot
SNAPSHOT_BYTES_PER_EVENT = 256  # and one event per so many bytes of state, so that snapshots cost linear work in all

TRANSITIONS_MAX = (
    5000  # entries and exits of steps that one decision may walk: `STEPS_MAX` steps without tools and more
)
EPOCHS_MAX = 100_000  # entries of one step in one execution: a cycle that never ends must end
MAX_ATTEMPTS = 3  # `meta.max_attempts` of a command, as the original writes it
DIAGNOSTIC_CHARS_MAX = 500  # of why a condition could not be evaluated, in a routing record; one per arc at most
