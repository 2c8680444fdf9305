"""The engine: playbook text, folded state, decisions. Pure: no clock, no network, no global state."""

from shared.engine.changes import ROUTING_KEY, loop_result, own_meta
from shared.engine.decide import Options, decide, effects_as_events, failure, initial_events
from shared.engine.document import Document, PlaybookError, Problem, read_document
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
from shared.engine.outcome import item_response
from shared.engine.parse import check_playbook, parse_playbook
from shared.engine.playbook import Playbook, Step
from shared.engine.references import LOST, LostDataError, NeedsDataError, ResultRef, loaded, reference_of, result_ref
from shared.engine.snapshot import (
    SNAPSHOT_FORMAT,
    SnapshotFormatError,
    SnapshotSizeError,
    snapshot_from_json,
    snapshot_to_json,
)
from shared.engine.state import (
    ACTIONABLE_TYPES,
    SEQUENCE_SUFFIX,
    TERMINAL_TYPES,
    Event,
    State,
    StepRun,
    initial_state,
    is_terminal_type,
)
from shared.engine.status import status_document
from shared.engine.templates import TemplateError, render_condition, render_value

__all__ = [
    "ACTIONABLE_TYPES",
    "LOST",
    "ROUTING_KEY",
    "SEQUENCE_SUFFIX",
    "SNAPSHOT_FORMAT",
    "TERMINAL_TYPES",
    "AppendEvent",
    "CancelCommand",
    "Decision",
    "Document",
    "Effect",
    "Event",
    "IssueCommand",
    "LostDataError",
    "NeedsDataError",
    "Options",
    "Playbook",
    "PlaybookError",
    "Problem",
    "ResultRef",
    "SetTimer",
    "SnapshotFormatError",
    "SnapshotSizeError",
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
    "item_response",
    "loaded",
    "loop_result",
    "own_meta",
    "parse_playbook",
    "read_document",
    "reference_of",
    "render_condition",
    "render_value",
    "replay",
    "result_ref",
    "snapshot_from_json",
    "snapshot_to_json",
    "status_document",
]
