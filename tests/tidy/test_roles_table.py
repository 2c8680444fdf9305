"""The table of roles in docs/security.md is the one that the gate goes by, and settings named there exist."""

from __future__ import annotations

import re

from services.dev.roles_table import PAGE, with_table
from shared.platform.settings import ALL_SETTINGS

OF_THE_CLIENT = {"NOETL_SESSION_TOKEN"}  # read by commands, not by a service


def test_the_table_is_current() -> None:
    page = PAGE.read_text()
    assert page == with_table(page), "run python -m services.dev.roles_table"
    assert "| operator |" in page


def test_every_setting_named_in_the_page_exists() -> None:
    known = {name.upper() for kind in ALL_SETTINGS.values() for name in kind.model_fields}
    named = set(re.findall(r"\bNOETL_[A-Z_]+\b", PAGE.read_text()))
    assert named - known == OF_THE_CLIENT
