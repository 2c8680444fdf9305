"""Fetch the tool list of an MCP server: one bounded GET that cannot be turned on our own network.

Addresses are checked when the connection is made, so that a name cannot resolve to another address between check and use.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
from aiohttp.abc import AbstractResolver, ResolveResult

from services.api.http import HttpError

FETCH_SECONDS = 10.0
FETCH_BYTES_MAX = 20 * 1024
CLUSTER_SUFFIXES = (".svc", ".svc.cluster.local", ".cluster.local")  # names of the cluster's own services


class BlockedAddressError(OSError):
    """The host has an address that must not be asked."""


def is_public(address: str) -> bool:
    """Whether `address` is outside of loopback, link-local, private, multicast and reserved ranges."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_global and not (mapped or ip).is_multicast


class _GuardedResolver(AbstractResolver):
    """Resolves names; refuses one that has any blocked address, unless the host is allowed."""

    def __init__(self, allowed: Collection[str]) -> None:
        self._inner = aiohttp.ThreadedResolver()
        self._allowed = allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if not _is_allowed(host, self._allowed) and not all(is_public(item["host"]) for item in found):
            raise BlockedAddressError(host)
        return found

    async def close(self) -> None:
        await self._inner.close()


def _is_allowed(host: str, allowed: Collection[str]) -> bool:
    return host in allowed or host.endswith(CLUSTER_SUFFIXES)


def _blocked(host: str) -> HttpError:
    return HttpError(
        400,
        f"discovery URL host '{host}' resolves to a blocked address range "
        "(loopback / link-local / multicast / RFC 1918 private). "
        "Use the in-cluster service DNS (e.g. *.svc.cluster.local) or a routable public host instead.",
    )


def _host_of(url: str) -> str:
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
    except ValueError as error:
        raise HttpError(400, "discovery URL is no URL") from error
    if parts.scheme not in ("http", "https"):
        raise HttpError(400, f"discovery URL must be http or https; got '{parts.scheme[:32]}'")
    if not host:
        raise HttpError(400, "discovery URL missing host")
    return host


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def fetch_tools(url: str, *, allowed_hosts: Collection[str] = ()) -> list[Any]:
    """Return the `tools` that `url` answers.

    Raises:
        HttpError: 400 when the URL must not be asked, 502 when its answer is of no use.
    """
    host = _host_of(url)
    if _is_literal(host) and not is_public(host) and not _is_allowed(host, allowed_hosts):
        raise _blocked(host)  # a literal address is never resolved
    connector = aiohttp.TCPConnector(resolver=_GuardedResolver(allowed_hosts), limit=1)
    try:
        async with (
            asyncio.timeout(FETCH_SECONDS),
            aiohttp.ClientSession(connector=connector, trust_env=False) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise HttpError(502, f"discovery URL answered {response.status}")
            data = await response.content.readexactly(FETCH_BYTES_MAX + 1)
            raise HttpError(502, f"discovery URL response exceeded {len(data) - 1} bytes")
    except asyncio.IncompleteReadError as whole:
        return _tools(whole.partial)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, BlockedAddressError):
            cause = cause.__cause__
        if cause is not None:
            raise _blocked(host) from error
        raise HttpError(502, f"discovery URL cannot be read: {type(error).__name__}") from error


def _tools(data: bytes) -> list[Any]:
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise HttpError(502, f"discovery URL returned non-JSON body: {error.msg}") from error
    tools = document.get("tools") if isinstance(document, dict) else None
    if not isinstance(tools, list):
        raise HttpError(502, "discovery URL must return {'tools': [...]} JSON")
    return tools
