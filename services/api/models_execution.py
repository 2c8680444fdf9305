"""Bodies and answers of starting, restarting, ending and analysing executions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from services.api.models import REASON_MAX, Id, Lax, ShortText, Text
from services.api.store.dedup import WINDOW_SECONDS_MAX

BATCH_MAX = 1000  # starts in one request, as in the Rust server
TRACE_CHARS_MAX = 1024  # of each trace header; W3C wants room for 512 of tracestate
DEDUP_KEY_CHARS_MAX = 512  # a key of a B-tree index
CLEANUP_MINUTES_MAX = 10 * 366 * 24 * 60  # ten years

TraceText = Annotated[Text, Field(max_length=TRACE_CHARS_MAX)]
Flag = Annotated[bool, Field(description="yes or no")]


class Trace(Lax):
    """W3C trace headers of whoever asked for the start."""

    traceparent: TraceText | None = None
    tracestate: TraceText | None = None
    baggage: TraceText | None = None


class Dedup(Lax):
    """A key under which one execution is started per window; the scope is `parent_execution_id`."""

    key: Text = Field(min_length=1, max_length=DEDUP_KEY_CHARS_MAX)
    window_secs: int = Field(300, ge=1, le=WINDOW_SECONDS_MAX, description="seconds")


class ExecuteBody(Lax):
    """Body of `POST /api/execute`."""

    path: ShortText | None = Field(
        None, description="catalog path, or the digits of a catalog id; this or `catalog_id`"
    )
    catalog_id: Id | None = Field(None, description="catalog entry; wins over `path`")
    version: Annotated[int | str | None, Field(description='version, digits, or "latest"')] = None
    resource_kind: str | None = Field(None, description="playbook or agent")
    payload: dict[str, Any] | None = Field(None, description="merged over the playbook's workload")
    workload: dict[str, Any] | None = Field(None, description="as `payload`, and wins over it")
    parent_execution_id: Id | None = None
    execution_pool: Annotated[str, Field(min_length=1, max_length=64, pattern="^[A-Za-z0-9_-]+$")] | None = Field(
        None, description="pool that runs all its commands"
    )
    trace: Trace | None = None
    dedup: Dedup | None = None

    @model_validator(mode="after")
    def _one_identifier(self) -> ExecuteBody:
        if not self.path and self.catalog_id is None:
            raise ValueError("Either 'path' or 'catalog_id' must be provided")
        return self


class ExecuteReply(BaseModel):
    """Answer of `POST /api/execute`; `duplicate` names the execution that an earlier start under the key became."""

    execution_id: str
    status: Literal["started", "duplicate"]
    commands_generated: int


class ExecuteBatchBody(Lax):
    """Body of `POST /api/execute/batch`: bodies of `POST /api/execute`, each on its own."""

    executions: list[dict[str, Any]] = Field(
        default_factory=list, json_schema_extra={"items": {"$ref": "#/components/schemas/ExecuteBody"}}
    )


class BatchItemReply(BaseModel):
    """What became of one start; `error` says what is wrong when nothing was started."""

    index: int
    status: Literal["started", "duplicate", "error"]
    execution_id: str | None = None
    commands_generated: int
    error: str | None = None


class ExecuteBatchReply(BaseModel):
    """Answer of `POST /api/execute/batch`."""

    count: int
    started: int
    duplicates: int
    failed: int
    results: list[BatchItemReply]


class RerunBody(Lax):
    """Body of `POST /api/executions/{execution_id}/rerun`; may be absent."""

    workload: dict[str, Any] | None = Field(None, description="merged over the workload of the earlier run")
    payload: dict[str, Any] | None = Field(None, description="as `workload`, which wins over it")
    resource_kind: str | None = Field(None, description="playbook or agent; the kind of the earlier run stays")


class FinalizeBody(Lax):
    """Body of `POST /api/executions/{execution_id}/finalize`; may be absent."""

    reason: Text = Field("Abandoned or timed out", min_length=1, max_length=REASON_MAX)
    status: Literal["COMPLETED", "FAILED"] = "FAILED"
    error: Annotated[Text, Field(max_length=REASON_MAX)] | None = Field(None, description="wins over `reason`")


class FinalizeReply(BaseModel):
    """Answer of `POST /api/executions/{execution_id}/finalize`."""

    status: Literal["finalized", "already_completed", "not_found"]
    execution_id: str
    message: str


class CleanupBody(Lax):
    """Body of `POST /api/executions/cleanup`."""

    older_than_minutes: int = Field(5, ge=1, le=CLEANUP_MINUTES_MAX)
    dry_run: bool = False


class CleanupReply(BaseModel):
    """Answer of `POST /api/executions/cleanup`."""

    cancelled_count: int
    execution_ids: list[str]
    message: str
