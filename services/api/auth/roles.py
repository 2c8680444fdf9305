"""Who may call what: the roles of callers, and what a route asks of them. The table itself is the route specs."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What a caller is. An operator may do what a viewer may; so may a worker; an admin may do everything."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    WORKER = "worker"
    ADMIN = "admin"


class Access(StrEnum):
    """What a route asks of its caller; every `RouteSpec` names one."""

    PUBLIC = "public"  # nobody is asked: health
    DOCS = "docs"  # public or for viewers, as NOETL_AUTH_PUBLIC says
    METRICS = "metrics"  # the same
    VIEWER = "viewer"  # reads without secrets
    OPERATOR = "operator"  # changes what runs: register, cancel, credentials
    WORKER = "worker"  # what a worker does: claims, events, results, reading secrets
    RUNNER = "operator or worker"  # starts executions, from outside or from a step
    ADMIN = "admin"  # SQL, clean-up, administration
    TOKENS = "admin, in every mode"  # hands out access: asked for a token even with NOETL_AUTH_MODE=off
    INTERNAL = "internal token"  # our own services, by NOETL_INTERNAL_API_TOKEN
    INTERNAL_ADMIN = "internal token or admin"  # operators' view of internals: keys, audit, dead letters


ALLOWED: dict[Access, frozenset[Role]] = {
    Access.PUBLIC: frozenset(Role),
    Access.DOCS: frozenset(Role),
    Access.METRICS: frozenset(Role),
    Access.VIEWER: frozenset(Role),
    Access.OPERATOR: frozenset({Role.OPERATOR, Role.ADMIN}),
    Access.WORKER: frozenset({Role.WORKER, Role.ADMIN}),
    Access.RUNNER: frozenset({Role.OPERATOR, Role.WORKER, Role.ADMIN}),
    Access.ADMIN: frozenset({Role.ADMIN}),
    Access.TOKENS: frozenset({Role.ADMIN}),
    Access.INTERNAL: frozenset(),  # by the internal token only, never by a role
    Access.INTERNAL_ADMIN: frozenset({Role.ADMIN}),
}


def is_internal(access: Access) -> bool:
    """Whether the internal token opens the route."""
    return access in (Access.INTERNAL, Access.INTERNAL_ADMIN)
