"""Analyse an execution from its log; have an AI playbook analyse it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web

from services.api.analysis import Cloud, Subject, analysis
from services.api.assistants import run_assistant
from services.api.auth.roles import Access
from services.api.http import Call, HttpError, RouteTable, dumps, not_found, reply
from services.api.models_analysis import AnalyzeAiBody, AnalyzeAiReply, AnalyzeBody, AnalyzeReply
from services.api.redaction import redact, redact_text
from services.api.routes.executions import execution_header
from services.api.store.queries import queries
from services.api.views import time_offset, time_z

if TYPE_CHECKING:
    from collections.abc import Mapping

routes = RouteTable("executions")

_SQL = queries("analysis")
FIX_MODES = ("apply", "dry_run", "report")
AI_EVENTS_MAX = 2000  # events analysed for a model: its input is bounded
AI_SAMPLE_MAX = 200
AI_ROWS_MAX = 200
AI_DOCUMENT_CHARS = 4000  # of each context and result
AI_META_CHARS = 2000

NO_REPORT: dict[str, Any] = {
    "executive_summary": "AI report payload was not found in analyzer execution output.",
    "primary_bottlenecks": [],
    "failure_risk_analysis": [],
    "recommended_dsl_runtime_changes": [],
    "validation_plan": [],
    "proposed_patch_diff": "",
}


async def analyse(
    call: Call, execution_id: int, *, max_events: int, sample_size: int, with_content: bool
) -> dict[str, Any]:
    """Return the analysis of an execution, redacted.

    Raises:
        HttpError: 404 when it is unknown or has no events.
    """
    database = call.context.database
    row = await execution_header(call, execution_id)
    newest = await database.fetchrow(_SQL["newest"], execution_id)
    if newest is None:
        raise not_found(f"No events found for execution {execution_id}")
    rows = await database.fetch(_SQL["first_events"], execution_id, max_events)
    content = await database.fetchval(_SQL["content"], row["catalog_id"]) if with_content else None
    settings = call.context.settings
    subject = Subject(
        execution_id=execution_id,
        catalog_id=row["catalog_id"],
        path=row["path"],
        version=row["version"],
        status=row["status"],
        content=redact_text(content) if content else None,
    )
    return analysis(
        subject,
        [{**item, "error": redact(item["error"])} for item in rows],
        newest=newest,
        terminal=await database.fetchrow(_SQL["terminal"], execution_id),
        cloud=Cloud(
            project=settings.gcp_project_id or settings.google_cloud_project,
            cluster=settings.gke_cluster_name,
            region=settings.gcp_region,
        ),
        sample_size=sample_size,
        generated_at=time_z(datetime.now(UTC)) or "",
    )


@routes.add(
    "POST",
    "/api/executions/{execution_id}/analyze",
    "Findings from an execution's log",
    role=Access.VIEWER,
    body=AnalyzeBody,
    body_required=False,
    response=AnalyzeReply,
    errors=(404,),
)
async def analyze(call: Call) -> web.StreamResponse:
    """Answer counts, findings and recommendations from the events, and a prompt to give to a model. Nothing is changed."""
    body: AnalyzeBody = call.body
    document = await analyse(
        call,
        call.path_id("execution_id"),
        max_events=body.max_events,
        sample_size=body.event_sample_size,
        with_content=body.include_playbook_content,
    )
    return reply(document)


def _fix_mode(body: AnalyzeAiBody) -> str:
    mode = body.auto_fix_mode.strip().lower() or "report"
    if mode not in FIX_MODES:
        given = body.auto_fix_mode[:64]
        raise HttpError(400, f"Invalid auto_fix_mode '{given}'. Expected one of: {list(FIX_MODES)}")
    if mode == "apply" and body.approval_required and not body.approved:
        raise HttpError(400, "Apply mode requires approved=true when approval_required=true")
    return mode


def _row_for_ai(row: Mapping[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {**row, "created_at": time_offset(row["created_at"]), "error": redact(row["error"])}
    for key, chars in (("context", AI_DOCUMENT_CHARS), ("result", AI_DOCUMENT_CHARS), ("meta", AI_META_CHARS)):
        value = row[key]
        shown[key] = None if value is None else dumps(redact(value)).decode()[:chars]
    return shown


@routes.add(
    "POST",
    "/api/executions/{execution_id}/analyze/ai",
    "Have an AI playbook analyse an execution",
    role=Access.OPERATOR,
    body=AnalyzeAiBody,
    body_required=False,
    response=AnalyzeAiReply,
    errors=(400, 404, 503),
)
async def analyze_ai(call: Call) -> web.StreamResponse:
    """Run the analyser playbook on the analysis and wait for its report; nothing is applied by the server itself."""
    execution_id = call.path_id("execution_id")
    body: AnalyzeAiBody = call.body
    mode = _fix_mode(body)
    bundle = await analyse(
        call,
        execution_id,
        max_events=min(body.max_events, AI_EVENTS_MAX),
        sample_size=min(body.event_sample_size, AI_SAMPLE_MAX),
        with_content=body.include_playbook_content,
    )
    rows: list[dict[str, Any]] = []
    if body.include_event_rows:
        limit = min(body.event_rows_limit, AI_ROWS_MAX)
        found = await call.context.database.fetch(_SQL["rows_for_ai"], execution_id, limit)
        rows = [_row_for_ai(row) for row in found]
    approval = {"auto_fix_mode": mode, "approval_required": body.approval_required, "approved": body.approved}
    commands = {
        "dry_run_commands": [
            f"noetl exec catalog://{bundle['path']}@{bundle['playbook']['version']} -r distributed --dry-run"
        ],
        "test_commands": ["pytest -q"],
    }
    run = await run_assistant(
        call.context,
        body.analysis_playbook_path,
        {
            "target_execution_id": str(execution_id),
            "target_playbook_path": bundle["path"],
            "target_playbook_status": bundle["status"],
            "analysis_bundle": bundle,
            "event_rows": rows,
            "event_log_rows": [],
            "metric_rows": [],
            "cloud_context": bundle["cloud"],
            "ai_prompt": bundle["ai_prompt"],
            "model": body.model,
            "include_patch_diff": body.include_patch_diff,
            **approval,
            **{f"default_{key}": value for key, value in commands.items()},
            **body.secrets(),
        },
        title="AI analysis",
        timeout_seconds=body.timeout_seconds,
        poll_interval_ms=body.poll_interval_ms,
    )
    allowed = mode != "apply" or not body.approval_required or body.approved
    report = {**commands, **approval, "apply_allowed": allowed, "dry_run_recommended": True}
    report |= run.report or NO_REPORT
    if not body.include_patch_diff:
        report["proposed_patch_diff"] = ""
    return reply(
        {
            "execution_id": str(execution_id),
            "path": bundle["path"],
            "status": bundle["status"],
            "generated_at": time_z(datetime.now(UTC)),
            "bundle": bundle,
            "ai_playbook_path": body.analysis_playbook_path,
            "ai_execution_id": str(run.execution_id),
            "ai_execution_status": run.status,
            "ai_report": report,
            "ai_raw_output": run.raw,
            **approval,
            "dry_run_recommended": True,
        }
    )
