"""Request bodies and queries of executions, events and commands. Lax like the original: digits in strings are integers,
unknown fields are ignored."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from shared.wire.types import ID_MAX, parse_id

NAME_MAX = 1024  # characters of a step, event or worker name
REASON_MAX = 2000  # characters of a reason that a person gives


def storable(text: str) -> str:
    """Return `text`.

    Raises:
        ValueError: it has a NUL character, which Postgres cannot store.
    """
    if "\x00" in text:
        raise ValueError("must not contain NUL characters")
    return text


def _lax_id(value: object) -> object:
    parsed = parse_id(value)
    return value if parsed is None else parsed


def _at_least_one(value: object) -> object:
    """Take 0 and less for 1, as the original does."""
    number = str(value).strip()
    return 1 if number.lstrip("-").isdecimal() and (number.startswith("-") or not number.strip("0")) else value


def _text_or_int(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Id = Annotated[int, BeforeValidator(_lax_id), Field(gt=0, le=ID_MAX)]
Name = Annotated[str, Field(min_length=1, max_length=NAME_MAX), AfterValidator(storable)]
Text = Annotated[str, AfterValidator(storable)]
# A bound on `Text | None` would be tried on null, too, and fail: the bound belongs to the text.
ShortText = Annotated[str, Field(max_length=NAME_MAX), AfterValidator(storable)]


class Lax(BaseModel):
    """Base of every request body."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class EventItem(Lax):
    """One event of a batch."""

    step: Name = Field(validation_alias=AliasChoices("step", "node_name"))
    name: Name = Field(validation_alias=AliasChoices("name", "event_type"))
    payload: dict[str, Any] = Field(default_factory=dict, validation_alias=AliasChoices("payload", "context"))
    meta: dict[str, Any] | None = None
    actionable: bool = False
    informative: bool = True
    event_id: int | str | None = None


class _OfExecution(Lax):
    execution_id: Id


class EventBody(EventItem, _OfExecution):
    """Body of `POST /api/events`, in the dialect of either worker."""

    worker_id: ShortText | None = None
    actionable: bool = True


class BatchBody(Lax):
    """Body of `POST /api/events/batch`."""

    execution_id: Id
    events: list[EventItem]
    worker_id: ShortText | None = None


class ClaimBody(Lax):
    """Body of `POST /api/commands/{event_id}/claim`."""

    worker_id: Name
    locality: dict[str, Any] | None = None


class CancelBody(Lax):
    """Body of `POST /api/executions/{execution_id}/cancel`; may be absent."""

    reason: Text = Field("User requested cancellation", max_length=REASON_MAX)
    cascade: bool = True


class PageQuery(Lax):
    """Paging of event lists."""

    page: int = Field(1, ge=1, le=1_000_000)
    page_size: int = Field(100, ge=10, le=500)
    since_event_id: int | None = Field(None, ge=-ID_MAX, le=ID_MAX)
    event_type: ShortText | None = None


class DetailQuery(PageQuery):
    """Query of `GET /api/executions/{execution_id}`."""

    include_events: bool = True


class ListQuery(Lax):
    """Query of `GET /api/executions`."""

    page: Annotated[int, BeforeValidator(_at_least_one)] = Field(1, ge=1, le=1_000_000)
    page_size: Annotated[int, BeforeValidator(_at_least_one)] = Field(100, ge=1)
    status: Annotated[str, Field(max_length=32), AfterValidator(storable)] | None = None


class StatusQuery(Lax):
    """Query of `GET /api/executions/{execution_id}/status`."""

    full: bool = False


class CancellationQuery(Lax):
    """Query of `GET /api/executions/{execution_id}/cancellation-check`."""

    commands: bool = Field(False, description="list commands, too, that were given up while a worker had them")


class StreamQuery(Lax):
    """Query of the event stream."""

    since: int | None = Field(None, ge=0, le=ID_MAX, description="resume after this stream version")
    after_version: int = Field(0, ge=0, le=ID_MAX, description="the same, under its older name; `since` wins")


class OutboxClaimBody(Lax):
    """Body of `POST /api/internal/outbox/claim`."""

    limit: int = Field(100, ge=1, le=1000)
    published_ids: list[Id] = Field(default_factory=list, max_length=10_000, description="marked first, in one go")


class MarkPublishedBody(Lax):
    """Body of `POST /api/internal/outbox/mark-published`."""

    outbox_ids: list[Id] = Field(min_length=1, max_length=10_000)


class MarkFailedBody(Lax):
    """Body of `POST /api/internal/outbox/mark-failed`."""

    outbox_id: Id
    error: Text
    attempts: int = Field(1, ge=1, le=1_000_000)
    max_delay_seconds: int = Field(300, ge=1, le=86_400)


class ProjectBody(Lax):
    """Body of `POST /api/internal/events/project`."""

    events: list[dict[str, Any]] = Field(min_length=1, max_length=5000)
    projections: dict[str, Any] | None = None


class LoadItem(Lax):
    """One execution to load."""

    execution_id: Id
    after_version: int = Field(0, ge=0, le=ID_MAX)
    snapshot: bool = Field(
        True, description="from version 0: the newest snapshot and the events after it, if there is one"
    )


class SnapshotBody(Lax):
    """Body of `POST /api/internal/executions/snapshot`."""

    execution_id: Id
    version: int = Field(ge=1, le=ID_MAX)
    snapshot: dict[str, Any]


class LoadBody(Lax):
    """Body of `POST /api/internal/executions/load`."""

    executions: list[LoadItem] = Field(min_length=1, max_length=200)


class DecisionItem(Lax):
    """One decision to commit."""

    execution_id: Id
    expected_decided_version: int = Field(ge=0, le=ID_MAX)
    decided_version: int = Field(ge=0, le=ID_MAX)
    effects: list[dict[str, Any]] = Field(default_factory=list)
    state: dict[str, Any] | None = None


class CommitBody(Lax):
    """Body of `POST /api/internal/executions/commit`."""

    decisions: list[DecisionItem] = Field(min_length=1, max_length=200)


class ReferencesBody(Lax):
    """Body of `POST /api/internal/references/resolve`."""

    locators: list[Annotated[Text, Field(max_length=8192)]] = Field(min_length=1, max_length=64)


class ReconcileBody(Lax):
    """Body of `POST /api/internal/reconcile`."""

    limit: int = Field(100, ge=1, le=1000)


class DeadLetterBody(Lax):
    """Body of `POST /api/internal/dead-letters`."""

    source: Name
    subject: Text | None = None
    msg_id: Text | None = None
    payload: Any = None
    reason: Text
    deliveries: int = Field(ge=0, le=1_000_000)
    execution_id: Id | None = None


class DeadLetterQuery(Lax):
    """Query of `GET /api/internal/dead-letters`."""

    limit: int = Field(100, ge=1, le=1000)
