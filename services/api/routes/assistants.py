"""Have an AI playbook explain a playbook, or write one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from services.api.assistants import AssistantRun, generated_playbook, run_assistant
from services.api.auth.roles import Access
from services.api.http import Call, HttpError, RouteTable, not_found, reply
from services.api.models_analysis import ExplainBody, ExplainReply, GenerateBody, GenerateReply
from services.api.playbooks import EXECUTABLE_KINDS
from services.api.store import catalog as store
from services.api.views import time_z

routes = RouteTable("catalog")

NO_EXPLANATION: dict[str, Any] = {
    "executive_summary": "No structured explanation returned by AI playbook.",
    "architecture_overview": "",
    "step_by_step": [],
    "risks": [],
    "improvement_opportunities": [],
    "test_recommendations": [],
}


def _common(path: str, run: AssistantRun) -> dict[str, Any]:
    return {
        "generated_at": time_z(datetime.now(UTC)),
        "ai_playbook_path": path,
        "ai_execution_id": str(run.execution_id),
        "ai_execution_status": run.status,
        "ai_report": run.report,
        "ai_raw_output": run.raw,
    }


@routes.add(
    "POST",
    "/api/catalog/playbooks/explain/ai",
    "Have an AI playbook explain a playbook",
    role=Access.OPERATOR,
    body=ExplainBody,
    response=ExplainReply,
    errors=(400, 404, 503),
)
async def explain(call: Call) -> web.StreamResponse:
    """Run the explaining playbook on a catalog entry and wait for its report."""
    body: ExplainBody = call.body
    row = await store.entry(call.context.database, catalog_id=body.catalog_id, path=body.path, version=body.version)
    if row is None:
        raise not_found("Target playbook not found in catalog")
    if row["kind"] not in EXECUTABLE_KINDS:
        raise HttpError(400, f"Catalog entry kind must be Playbook, got {row['kind']}")
    run = await run_assistant(
        call.context,
        body.explanation_playbook_path,
        {
            "target_playbook_catalog_id": str(row["catalog_id"]),
            "target_playbook_path": row["path"],
            "target_playbook_version": row["version"],
            "target_playbook_kind": row["kind"],
            "target_playbook_content": row["content"] or "",
            "target_playbook_payload": row["payload"] or {},
            "model": body.model,
            **body.secrets(),
        },
        title="AI explain",
        timeout_seconds=body.timeout_seconds,
        poll_interval_ms=body.poll_interval_ms,
    )
    document = {"target_path": row["path"], "target_version": row["version"]}
    document |= _common(body.explanation_playbook_path, run)
    return reply({**document, "ai_report": run.report or NO_EXPLANATION})


@routes.add(
    "POST",
    "/api/catalog/playbooks/generate/ai",
    "Have an AI playbook write a playbook",
    role=Access.OPERATOR,
    body=GenerateBody,
    response=GenerateReply,
    errors=(404, 502, 503),
)
async def generate(call: Call) -> web.StreamResponse:
    """Run the generating playbook and answer its YAML; nothing is registered. 502 when it wrote none."""
    body: GenerateBody = call.body
    run = await run_assistant(
        call.context,
        body.generator_playbook_path,
        {"prompt": body.prompt, "model": body.model, **body.secrets()},
        title="AI generator",
        timeout_seconds=body.timeout_seconds,
        poll_interval_ms=body.poll_interval_ms,
    )
    text = generated_playbook(run.raw) or generated_playbook(run.report)
    if not text:
        raise HttpError(
            502,
            "AI generator playbook completed but no generated playbook text was returned. "
            f"AI execution status: {run.status} (execution {run.execution_id})",
        )
    return reply({**_common(body.generator_playbook_path, run), "generated_playbook": text})
