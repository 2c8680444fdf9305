"""Recorded requests sent to a running API, and the comparison as the tests want it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from services.dev.parity.compare import Finding, compare
from services.dev.parity.masks import MASKS
from services.dev.parity.recordings import Answer, Request
from services.dev.parity.rules import Difference, Mask, load_differences
from tests.support.api import RunningApi

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "http"
DIFFERENCES = load_differences()


async def answer_of(api: RunningApi, request: Request) -> Answer:
    """Send a recorded request and return what came back."""
    async with api.session.request(
        request.method, api.url + request.path, data=request.body, headers=request.headers, allow_redirects=False
    ) as response:
        headers = {key.lower(): value for key, value in response.headers.items()}
        return Answer(status=response.status, headers=headers, body=await response.read())


def declared(name: str, folder: str) -> list[Difference]:
    """Return the differences that are declared for a recording of `folder`; those of writes are named `writes/NNN_name`."""
    key = name if folder == "reads" else f"{folder}/{name}"
    return [difference for difference in DIFFERENCES if key in difference.recordings]


def check(
    request: Request,
    base: Answer,
    other: Answer,
    differences: list[Difference],
    masks: Sequence[Mask] = MASKS,
) -> list[str]:
    """Return what differs without being declared, and what is declared and no longer differs."""
    found: list[Finding] = compare(request, base, other, masks=masks, differences=differences)
    problems = [str(item) for item in found]
    for difference in differences:
        others = [item for item in differences if item is not difference]
        if not compare(request, base, other, masks=masks, differences=others):
            problems.append(f"difference {difference.id} is declared and not there any more")
    return problems
