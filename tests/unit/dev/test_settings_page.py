"""`playhead settings` names every setting and shows no secret."""

from __future__ import annotations

import pytest

from services.dev.settings_page import settings_page
from shared.platform.settings import ALL_SETTINGS


def test_every_setting_is_there_with_its_meaning() -> None:
    page = settings_page()
    for kind in ALL_SETTINGS.values():
        for name, field in kind.model_fields.items():
            assert name.upper() in page
            assert field.description, name


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOETL_INTERNAL_API_TOKEN", "s3cr3t-token")
    monkeypatch.setenv("NATS_URL", "nats://user:s3cr3t-password@nats:4222")
    monkeypatch.setenv("NOETL_POSTGRES_DSN", "postgresql://u:s3cr3t-dsn@db/x")
    page = settings_page()
    assert "s3cr3t" not in page
    assert "nats:4222" in page


def test_a_wrong_value_does_not_keep_the_page_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOETL_PORT", "abc")
    assert "NOETL_PORT = abc" in settings_page()


def test_a_secret_is_masked_even_beside_a_wrong_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOETL_PORT", "abc")
    monkeypatch.setenv("POSTGRES_PASSWORD", "s3cr3t")
    assert "s3cr3t" not in settings_page()
