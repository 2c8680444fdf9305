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
    label: str = field(init=False)  # the caller as logs and the audit trail name it
    role: str | None = field(init=False)  # its roles as text

    def __post_init__(self) -> None:
        """Make the texts once: every request needs them."""
        unnamed = self.kind in ("anonymous", "service")
        object.__setattr__(self, "label", self.kind if unnamed else f"{self.kind}:{self.name}")
        role = None if self.kind == "anonymous" else ", ".join(sorted(self.roles)) or None
        object.__setattr__(self, "role", role)

    def client(self, address: str | None) -> str:
        """Return whom limits count: the token or name; somebody without one by the `address` of the peer, maybe a proxy's."""
        return f"address:{address}" if self.kind == "anonymous" else self.token_id or self.label

    def may(self, access: Access) -> bool:
        """Whether one of its roles is enough for `access`."""
        return not ALLOWED[access].isdisjoint(self.roles)


NOBODY = Actor(kind="anonymous", name="anonymous")
EVERYBODY = Actor(kind="anonymous", name="anonymous", roles=frozenset(Role))  # NOETL_AUTH_MODE=off
SERVICE = Actor(kind="service", name="service", roles=frozenset({Role.WORKER}))  # holds the internal token
BOOTSTRAP = Actor(kind="bootstrap", name="admin", roles=frozenset({Role.ADMIN}))  # holds NOETL_ADMIN_TOKEN
