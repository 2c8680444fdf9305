"""Settings of the API about who may call: modes, tokens, OpenID Connect, limits, the audit trail."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

PerSecond = Annotated[float, Field(ge=0, le=1_000_000)]


class AccessSettings(BaseSettings):
    """What `playhead api` reads about its callers."""

    noetl_auth_mode: Literal["off", "token", "oidc"] = Field(
        "off",
        description="who may call: off = anybody (loopback only, or NOETL_AUTH_OFF_CONFIRMED), token = API tokens, "
        "oidc = JWTs and API tokens",
    )
    noetl_auth_off_confirmed: bool = Field(
        False, description="true: NOETL_AUTH_MODE=off is meant also where NOETL_HOST is not loopback"
    )
    noetl_auth_public: str = Field(
        "docs,metrics", description="what needs no token beside health: docs, metrics, both with a comma, or none"
    )
    noetl_cors_origins: str = Field(
        "",
        description="origins of web pages that may call, with commas, or loopback, or *; empty: loopback where "
        "NOETL_AUTH_MODE=off listens on loopback, else *",
    )
    noetl_admin_token: SecretStr = Field(
        SecretStr(""), description="token with the role admin, to create the first API tokens (32 characters at least)"
    )
    noetl_admin_token_file: str = Field("", description="file that holds it, instead of NOETL_ADMIN_TOKEN")
    noetl_internal_api_token_previous: SecretStr = Field(
        SecretStr(""), description="also accepted as NOETL_INTERNAL_API_TOKEN while that is being changed"
    )
    noetl_auth_refresh_seconds: Annotated[float, Field(ge=0.1, le=300)] = Field(
        5.0, description="a token revoked on another replica opens nothing after so long (s)"
    )
    noetl_oidc_issuer: str = Field("", description="`iss` that JWTs must have; needed with NOETL_AUTH_MODE=oidc")
    noetl_oidc_audience: str = Field("", description="`aud` that JWTs must have; needed with NOETL_AUTH_MODE=oidc")
    noetl_oidc_jwks_url: str = Field("", description="where the issuer's keys are (https, or http on loopback)")
    noetl_oidc_algorithms: str = Field("RS256,ES256,EdDSA", description="signature algorithms accepted, of these three")
    noetl_oidc_leeway_seconds: Annotated[float, Field(ge=0, le=300)] = Field(
        30.0, description="clocks may differ by so much when exp and nbf are checked (s)"
    )
    noetl_oidc_keys_seconds: Annotated[float, Field(ge=10, le=86_400)] = Field(
        600.0, description="the issuer's keys are fetched again after so long (s)"
    )
    noetl_oidc_name_claim: str = Field("sub", description="claim that names the caller in logs and the audit trail")
    noetl_oidc_role_claim: str = Field("roles", description="claim with the caller's roles; a.b looks inside an object")
    noetl_oidc_role_map: str = Field(
        "viewer=viewer,operator=operator,worker=worker,admin=admin",
        description="value of that claim = role, with commas",
    )
    noetl_rate_limit_per_second: PerSecond = Field(
        0.0, description="requests of one client (token, else address) per second; beyond: 429; 0: no limit"
    )
    noetl_rate_limit_worker_per_second: PerSecond = Field(0.0, description="the same for the role worker")
    noetl_rate_limit_burst_seconds: Annotated[float, Field(ge=0.1, le=3600)] = Field(
        5.0, description="requests of so many seconds may come at once (s)"
    )
    noetl_max_body_bytes_clients: Annotated[int, Field(ge=1024, le=1 << 30)] = Field(
        8 * 1024 * 1024,
        description="request body of callers without the role worker or admin at most (bytes), within NOETL_MAX_BODY_BYTES",
    )
    noetl_audit_retention_days: Annotated[float, Field(gt=0, le=36_500)] = Field(
        90.0, description="the audit trail and the record of secret accesses are kept so long (days)"
    )
    noetl_secret_audit_required: bool = Field(
        True, description="true: a secret is not given out when its access cannot be recorded (503)"
    )
