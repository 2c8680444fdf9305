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
TEMPLATE_CACHE_MAX = 4096  # compiled templates kept per process
VALUE_DEPTH_MAX = 64  # nesting of a rendered value

TRANSITIONS_MAX = 2000  # steps that one decision may walk without a command (tool-less or skipped ones)
EPOCHS_MAX = 100_000  # entries of one step in one execution: a cycle that never ends must end
MAX_ATTEMPTS = 3  # `meta.max_attempts` of a command, as the original writes it
DIAGNOSTIC_CHARS_MAX = 500  # of why a condition could not be evaluated, in a routing record; one per arc at most
