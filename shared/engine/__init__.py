"""The engine: playbook text, folded state, decisions. Pure: no clock, no network, no global state."""

from shared.engine.decide import decide, effects_as_events, failure, initial_events
from shared.engine.effects import (
    AppendEvent,
    CancelCommand,
    Decision,
    Effect,
    IssueCommand,
    SetTimer,
    command_id_for,
    effect_from_json,
)
from shared.engine.fold import VersionGapError, evolve, replay
from shared.engine.parse import (
    PlaybookError,
    Problem,
    check_playbook,
    parse_playbook,
    read_document,
)
from shared.engine.playbook import Playbook, Step
from shared.engine.state import ACTIONABLE_TYPES, Event, State, StepRun, initial_state, is_terminal_type
from shared.engine.status import status_document
from shared.engine.templates import TemplateError, render_condition, render_value

__all__ = [
    "ACTIONABLE_TYPES",
    "AppendEvent",
    "CancelCommand",
    "Decision",
    "Effect",
    "Event",
    "IssueCommand",
    "Playbook",
    "PlaybookError",
    "Problem",
    "SetTimer",
    "State",
    "Step",
    "StepRun",
    "TemplateError",
    "VersionGapError",
    "check_playbook",
    "command_id_for",
    "decide",
    "effect_from_json",
    "effects_as_events",
    "evolve",
    "failure",
    "initial_events",
    "initial_state",
    "is_terminal_type",
    "parse_playbook",
    "read_document",
    "render_condition",
    "render_value",
    "replay",
    "status_document",
]
