"""Every operation of the served document, called with generated data: it answers what the document says, and never a 5xx."""

from __future__ import annotations

import asyncio

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.e2e.playbooks import LINEAR
from tests.support.api import TOKEN, RunningApi

EXAMPLES = 8  # per operation and mode; derandomised, so that a run finds what the last one found
CALL_SECONDS_MAX = 20.0
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
BUSY = {503}  # a dependency is away or a limit is reached: documented, and no fault of the operation


def said(error: BaseException) -> str:
    """Return the text of a failure, or of each in a group."""
    if isinstance(error, BaseExceptionGroup):
        return " | ".join(said(inner) for inner in error.exceptions)
    return f"{type(error).__name__}: {error}"[:1500]


def call_every_operation(url: str, mode: GenerationMode) -> list[str]:
    """Call each operation with data that its document allows or forbids; return what was wrong, an entry per operation."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    wrong: list[str] = []
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: schemathesis.Case) -> None:
            response: Response = case.call(
                base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=CALL_SECONDS_MAX
            )
            if response.status_code not in BUSY:
                case.validate_response(response, checks=CHECKS)

        try:
            check()
        except Unsatisfiable:
            continue  # takes nothing that could be wrong
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - every operation is tried
            wrong.append(f"{operation.method.upper()} {operation.path}: {said(error)}")
    return wrong


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["allowed", "forbidden"])
async def test_every_operation_answers_what_its_document_says(api: RunningApi, mode: GenerationMode) -> None:
    await api.start(LINEAR)
    wrong = await asyncio.to_thread(call_every_operation, api.url, mode)
    assert not wrong, "\n".join(wrong)
