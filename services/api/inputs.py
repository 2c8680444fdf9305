"""Kinds of request values that resource routes share: text Postgres can hold, pages, versions."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from services.api.http import Call, unprocessable
from services.api.models import NAME_MAX, Lax, storable
from services.api.models import ShortText as ShortText  # its public place
from services.api.store.catalog import VERSION_MAX

TEXT_MAX = 10_000  # characters of a description
OFFSET_MAX = 1_000_000  # rows skipped at most; a page beyond costs a full scan and shows nothing useful


def _empty_is_none(value: object) -> object:
    return None if value == "" else value


Text = Annotated[str, Field(max_length=TEXT_MAX), AfterValidator(storable)]
Key = Annotated[str, Field(min_length=1, max_length=NAME_MAX), AfterValidator(storable)]
OptionalKey = Annotated[ShortText | None, BeforeValidator(_empty_is_none)]
Offset = Annotated[int, Field(ge=0, le=OFFSET_MAX)]


def path_text(call: Call, name: str) -> str:
    """Return the path parameter `name` as text of bounded length.

    Raises:
        HttpError: 422 when it is too long or has NUL characters.
    """
    text = call.path(name)
    if len(text) > NAME_MAX:
        raise unprocessable(["path", name], f"{name} has at most {NAME_MAX} characters", text, kind="string_too_long")
    if "\x00" in text:
        raise unprocessable(["path", name], f"{name} must not contain NUL characters")
    return text


def parse_version(value: int | str | None) -> int | None:
    """Return a catalog version, None for the newest (`latest`, empty, absent).

    Raises:
        ValueError: it is neither.
    """
    if value is None or value == "" or value == "latest":
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 5:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= VERSION_MAX:
        raise ValueError(f'version must be "latest" or an integer from 1 to {VERSION_MAX}')
    return value


Version = Annotated[int | None, BeforeValidator(parse_version), Field(json_schema_extra={"examples": ["latest", 3]})]


class Answer(BaseModel):
    """Base of documented answers."""


class Deleted(Answer):
    """A message that something is gone."""

    status: str
    message: str


def truncated(rows: list[Any], limit: int) -> tuple[list[Any], dict[str, str]]:
    """Cut `rows`, read with one row more than `limit`, and return the header that tells of more."""
    return (rows[:limit], {"X-Playhead-More": "true"}) if len(rows) > limit else (rows, {})


class Page(Lax):
    """Paging by offset."""

    offset: Offset = 0
