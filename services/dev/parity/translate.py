"""Ids that a server mints: learned from its answers to recorded requests, and put into later requests. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from services.dev.parity.recordings import Answer, Request

_ID = re.compile(r"\d{15,19}")  # snowflakes of the years 2024 to 2088, in either layout


class Translator:
    """What one server calls the ids of a recording."""

    def __init__(self, *, minted_from: int = 0) -> None:
        """Learn ids from `minted_from` on; smaller ones stood in the recorded database already."""
        self._minted_from = minted_from
        self._ids: dict[str, str] = {}

    def know(self, recorded: str, here: str) -> None:
        """Remember that `recorded` is called `here`."""
        self._ids[recorded] = here

    def learn(self, recorded: Answer, here: Answer) -> None:
        """Remember the ids that stand at the same places of both answers."""
        try:
            pairs = list(_pairs(json.loads(recorded.body), json.loads(here.body)))
        except (ValueError, RecursionError):
            return
        for old, new in pairs:
            if _ID.fullmatch(str(old)) and _ID.fullmatch(str(new)) and int(old) >= self._minted_from:
                self._ids.setdefault(str(old), str(new))

    def text(self, text: str) -> str:
        """Return `text` with every known id replaced."""
        return _ID.sub(lambda match: self._ids.get(match[0], match[0]), text)

    def request(self, request: Request) -> Request:
        """Return the request as this server must be asked."""
        body = None if request.body is None else self.text(request.body)
        return replace(request, path=self.text(request.path), body=body)

    def answer(self, answer: Answer) -> Answer:
        """Return a recorded answer as this server would give it."""
        return replace(
            answer, body=self.text(answer.body.decode(errors="surrogateescape")).encode(errors="surrogateescape")
        )


def _pairs(one: Any, two: Any) -> Iterator[tuple[str | int, str | int]]:
    if isinstance(one, dict) and isinstance(two, dict):
        for key in one.keys() & two.keys():
            yield from _pairs(one[key], two[key])
    elif isinstance(one, list) and isinstance(two, list):
        for first, second in zip(one, two, strict=False):
            yield from _pairs(first, second)
    elif isinstance(one, str | int) and isinstance(two, str | int):
        yield one, two
