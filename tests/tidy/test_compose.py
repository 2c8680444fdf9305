"""compose.yaml runs what the command line has, with settings that exist."""

from __future__ import annotations

from pathlib import Path

import yaml

from services.dev.cli import SERVICES
from shared.platform.settings import ALL_SETTINGS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = yaml.safe_load((ROOT / "compose.yaml").read_text())
OURS = {name: service for name, service in DOCUMENT["services"].items() if "playhead" in str(service.get("image"))}


def test_every_service_of_ours_is_there_and_runs_its_command() -> None:
    assert {service["command"][0] for service in OURS.values()} == set(SERVICES)
    assert set(OURS) == set(SERVICES)


def test_every_variable_is_a_setting() -> None:
    for name, service in OURS.items():
        kind = ALL_SETTINGS["api" if name == "migrate" else name]
        known = {field.upper() for field in kind.model_fields}
        assert set(service["environment"]) <= known, name


def test_services_wait_for_what_they_need() -> None:
    for service in OURS.values():
        assert set(service["depends_on"]) <= set(DOCUMENT["services"])


def test_no_secret_is_written_down() -> None:
    for service in DOCUMENT["services"].values():
        for key, value in (service.get("environment") or {}).items():
            if any(word in key for word in ("PASSWORD", "TOKEN", "KEY")):
                assert value.startswith("${"), key
