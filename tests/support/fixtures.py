"""The public fixture playbooks and the recorded runs of the original, as files of this repository."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
FIXTURES = sorted((GOLDEN / "playbooks").rglob("*.yaml"))
RUNS = sorted((GOLDEN / "runs").glob("*/playbook.yaml"))
ENGINE_RUNS = sorted((GOLDEN / "engine").glob("*.json"))
RUN_CHILDREN = sorted((GOLDEN / "runs").glob("*/dep_*.yaml"))
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))
PLAYBOOKS = [*FIXTURES, *RUNS, *RUN_CHILDREN, *EXAMPLES]


def name_of(file: Path) -> str:
    """Return a short name of a file, for the name of a test."""
    place = file.relative_to(ROOT).with_suffix("")
    return "/".join(place.parts[-2:] if place.parts[-1] not in ("playbook",) else place.parts[-3:-1])
