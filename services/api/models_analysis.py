"""Bodies and answers of analyses and of the routes that run an AI playbook."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, model_validator

from services.api.inputs import OptionalKey, Version
from services.api.models import NAME_MAX, Id, Lax, ShortText, Text

PROMPT_CHARS_MAX = 100_000


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("prompt cannot be empty")
    return text


PlaybookPath = Annotated[Text, Field(min_length=1, max_length=NAME_MAX)]


class AnalyzeBody(Lax):
    """Body of `POST /api/executions/{execution_id}/analyze`; may be absent."""

    max_events: int = Field(1200, ge=100, le=10_000, description="oldest events that are looked at")
    event_sample_size: int = Field(120, ge=20, le=1000, description="of them, the last so many are shown")
    include_playbook_content: bool = False


class AnalyzeReply(BaseModel):
    """Answer of `POST /api/executions/{execution_id}/analyze`."""

    execution_id: str
    path: str
    status: str
    generated_at: datetime
    summary: dict[str, Any]
    findings: list[dict[str, Any]]
    recommendations: list[str]
    cloud: dict[str, Any]
    playbook: dict[str, Any]
    event_sample: list[dict[str, Any]]
    ai_prompt: str


class AssistantOptions(Lax):
    """What every route that runs an AI playbook takes."""

    gcp_auth_credential: ShortText | None = None
    openai_secret_path: ShortText | None = None
    model: Text = Field("gpt-4o-mini", max_length=NAME_MAX)
    timeout_seconds: int = Field(180, ge=30, le=1200, description="wait for the playbook at most (s)")
    poll_interval_ms: int = Field(1500, ge=200, le=10_000, description="look at least so often (ms)")

    def secrets(self) -> dict[str, str]:
        """Return the names of the secrets, as the playbooks read them."""
        given = {"gcp_auth": self.gcp_auth_credential, "openai_secret_path": self.openai_secret_path}
        return {key: value.strip() for key, value in given.items() if value and value.strip()}


class AnalyzeAiBody(AnalyzeBody, AssistantOptions):
    """Body of `POST /api/executions/{execution_id}/analyze/ai`; may be absent."""

    include_event_rows: bool = True
    event_rows_limit: int = Field(120, ge=50, le=5000, description="rows sent; 200 at most")
    include_event_log_rows: bool = False
    event_log_rows_limit: int = Field(40, ge=20, le=2000, description="as the original; there is no such table here")
    analysis_playbook_path: PlaybookPath = "ops/execution_ai_analyze"
    include_patch_diff: bool = True
    auto_fix_mode: str = Field("report", description="report, dry_run or apply")
    approval_required: bool = True
    approved: bool = False


class AssistantReply(BaseModel):
    """What every route that runs an AI playbook answers."""

    generated_at: datetime
    ai_playbook_path: str
    ai_execution_id: str | None
    ai_execution_status: str
    ai_report: dict[str, Any]
    ai_raw_output: dict[str, Any]


class AnalyzeAiReply(AssistantReply):
    """Answer of `POST /api/executions/{execution_id}/analyze/ai`."""

    execution_id: str
    path: str
    status: str
    bundle: AnalyzeReply
    approval_required: bool
    approved: bool
    auto_fix_mode: str
    dry_run_recommended: bool


class ExplainBody(AssistantOptions):
    """Body of `POST /api/catalog/playbooks/explain/ai`."""

    catalog_id: Id | None = None
    path: OptionalKey = None
    version: Version = None
    explanation_playbook_path: PlaybookPath = "ops/playbook_ai_explain"

    @model_validator(mode="after")
    def _one_identifier(self) -> ExplainBody:
        if self.catalog_id is None and self.path is None:
            raise ValueError("Either catalog_id or path must be provided")
        return self


class ExplainReply(AssistantReply):
    """Answer of `POST /api/catalog/playbooks/explain/ai`."""

    target_path: str
    target_version: int | None


class GenerateBody(AssistantOptions):
    """Body of `POST /api/catalog/playbooks/generate/ai`."""

    prompt: Annotated[Text, Field(max_length=PROMPT_CHARS_MAX), AfterValidator(_not_blank)]
    generator_playbook_path: PlaybookPath = "ops/playbook_ai_generate"


class GenerateReply(AssistantReply):
    """Answer of `POST /api/catalog/playbooks/generate/ai`."""

    generated_playbook: str
