"""Which web pages may call. Without tokens, any page that a person visits could drive an API on the same machine: start
playbooks, read credentials. So with NOETL_AUTH_MODE=off on loopback only pages of this machine may, by its own addresses.

Elsewhere every origin may, as in the original: there a token is asked for, which a foreign page does not have.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from services.api.http import HttpError
from shared.platform.addresses import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.platform.settings import ApiSettings

REMEMBERED_MAX = 1_000  # pairs of Origin and Host that passed
EVERYBODY, LOOPBACK = "*", "loopback"  # words in NOETL_CORS_ORIGINS beside origins


def _is_local(name: str | None) -> bool:
    return name is not None and (is_loopback(name) or name.endswith(".localhost"))


def _host(text: str) -> str | None:
    """Return the host of an origin, or of a Host header with `//` in front; None when there is none."""
    try:
        return urlsplit(text).hostname
    except ValueError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origins:
    """What `Origin` and `Host` a request may have."""

    any_origin: bool
    loopback: bool
    origins: frozenset[str]
    only_local_hosts: bool
    passed: set[tuple[str | None, str | None]] = field(default_factory=set)  # what need not be looked at again

    def check(self, headers: Mapping[str, str]) -> None:
        """Let a request pass that no foreign page can have made.

        Raises:
            HttpError: 403 naming the setting.
        """
        given = (headers.get("Origin"), headers.get("Host"))
        if given in self.passed:
            return
        self._check(*given)
        if len(self.passed) < REMEMBERED_MAX:
            self.passed.add(given)

    def _check(self, origin: str | None, host: str | None) -> None:
        if origin is not None and not self._allows(origin):
            raise HttpError(403, f"pages of {origin[:200]} may not call: add it to NOETL_CORS_ORIGINS")
        if host is None or not self.only_local_hosts:
            return
        name = _host(f"//{host}")
        if not _is_local(name) and name not in {_host(item) for item in self.origins}:
            raise HttpError(
                403,
                f"{host[:200]} is no address of this machine: call 127.0.0.1, or add its origin to NOETL_CORS_ORIGINS",
            )

    def _allows(self, origin: str) -> bool:
        if self.any_origin or origin.lower() in self.origins:
            return True
        return self.loopback and _is_local(_host(origin))


def origins_of(settings: ApiSettings) -> Origins:
    """Return what `settings` allow.

    Raises:
        ValueError: NOETL_CORS_ORIGINS has something else than origins and its two words.
    """
    words = {word.strip().lower().rstrip("/") for word in settings.noetl_cors_origins.split(",") if word.strip()}
    exposed = settings.noetl_auth_mode == "off" and is_loopback(settings.noetl_host)
    origins = frozenset(words - {EVERYBODY, LOOPBACK})
    for origin in origins:
        if urlsplit(origin).scheme not in ("http", "https") or not _host(origin):
            raise ValueError(f"NOETL_CORS_ORIGINS: {origin!r} is no origin such as https://gui.example.com")
    return Origins(
        any_origin=EVERYBODY in words or (not words and not exposed),
        loopback=LOOPBACK in words or exposed,
        origins=origins,
        only_local_hosts=exposed and EVERYBODY not in words,
    )
