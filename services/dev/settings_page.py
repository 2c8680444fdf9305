"""`playhead settings`: every setting with its default, the value in force and its meaning."""

from __future__ import annotations

import os
from textwrap import wrap

from pydantic import SecretStr, ValidationError

from shared.platform.settings import ALL_SETTINGS, CommonSettings

MASK = "********"
MEANING_CHARS = 100


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return MASK if value.get_secret_value() else '""'
    text = str(value)
    if "@" in text and "://" in text:  # a URL with a login in it
        scheme, _, rest = text.partition("://")
        return f"{scheme}://{MASK}@{rest.rpartition('@')[2]}"
    return text or '""'


def _unread(given: str | None, default: object) -> object:
    """Return a value as the environment has it; a secret stays one."""
    if given is None:
        return default
    return SecretStr(given) if isinstance(default, SecretStr) else given


def _section(title: str, kind: type[CommonSettings], names: list[str]) -> list[str]:
    try:
        settings: CommonSettings | None = kind()
    except ValidationError:
        settings = None  # a wrong value is shown as it is, and the service says what is wrong with it
    lines = [f"{title}:"]
    for name in names:
        found = kind.model_fields[name]
        variable = name.upper()
        given = os.environ.get(variable)
        value = _shown(getattr(settings, name) if settings is not None else _unread(given, found.default))
        note = "  (set)" if given is not None else ""
        lines.append(f"  {variable} = {value}{note}")
        text = f"{found.description or ''}; default {_shown(found.default)}"
        lines += [f"      {line}" for line in wrap(text, MEANING_CHARS)]
    return lines


def settings_page() -> str:
    """Return the page; secrets are masked."""
    common = list(CommonSettings.model_fields)
    lines = _section("every service", CommonSettings, common)
    for name, kind in ALL_SETTINGS.items():
        lines += ["", *_section(f"playhead {name}", kind, [item for item in kind.model_fields if item not in common])]
    return "\n".join(lines)
