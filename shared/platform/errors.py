"""The errors that parts of Playhead raise to one another. Each carries what a person needs to act on it."""

from __future__ import annotations


class PlayheadError(Exception):
    """Base of every error of our own."""


class ApiUnavailableError(PlayheadError):
    """The API could not be reached or refused for now (503, 429, connection lost); the same request may be sent again."""


class ApiRefusedError(PlayheadError):
    """The API refused the request for good (4xx); sending it again changes nothing."""

    def __init__(self, status: int, path: str, detail: object) -> None:
        super().__init__(f"{path} answered {status}: {str(detail)[:500]}")
        self.status = status
        self.detail = detail
