"""Who calls: the identity a request has after the gate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from services.api.auth.roles import ALLOWED, Access, Role

ActorKind = Literal["anonymous", "token", "oidc", "service", "bootstrap"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """A caller. `token_id` is the part of an API token that may be shown."""

    kind: ActorKind
    name: str
    roles: frozenset[Role] = field(default_factory=frozenset)
    token_id: str | None = None

    @property
    def label(self) -> str:
        """The caller as logs and the audit trail name it."""
        return self.kind if self.kind in ("anonymous", "service") else f"{self.kind}:{self.name}"

    @property
    def role(self) -> str | None:
        """Its roles as text, None without any."""
        return ", ".join(sorted(self.roles)) or None

    def may(self, access: Access) -> bool:
        """Whether one of its roles is enough for `access`."""
        return not ALLOWED[access].isdisjoint(self.roles)


NOBODY = Actor(kind="anonymous", name="anonymous")
EVERYBODY = Actor(kind="anonymous", name="anonymous", roles=frozenset(Role))  # NOETL_AUTH_MODE=off
SERVICE = Actor(kind="service", name="service", roles=frozenset({Role.WORKER}))  # holds the internal token
BOOTSTRAP = Actor(kind="bootstrap", name="admin", roles=frozenset({Role.ADMIN}))  # holds NOETL_ADMIN_TOKEN
