"""`playhead token create|list|revoke` and `playhead keys status|rotate`: administration over the API, with an admin token."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from services.dev.processes import ADMIN_TOKEN_FILE

if TYPE_CHECKING:
    from services.dev.client import PublicApi

DEFAULT_DATA_DIR = Path(".playhead")  # of `playhead dev`
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
ROTATE_CALLS_MAX = 10_000  # each re-encrypts up to 10,000 rows
ROTATE_BATCHES = 100  # per call, so that one call stays far below a request's time limit
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _duration(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if match is None or int(match[1]) == 0:
        raise argparse.ArgumentTypeError("must be a number with a unit: 90d, 12h, 30m, 60s")
    return int(match[1]) * UNITS[match[2]]


def add_commands(commands: Any, default_server: str) -> None:
    """Add `token` and `keys` to the command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--server", metavar="URL", help=f"default: NOETL_SERVER_URL, else {default_server}")
    common.add_argument(
        "--data-dir",
        type=Path,
        default=DEFAULT_DATA_DIR,
        metavar="D",
        help="of `playhead dev`, whose token is used locally",
    )
    token = commands.add_parser("token", help="create, list and revoke API tokens (with NOETL_ADMIN_TOKEN)")
    actions = token.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = actions.add_parser("create", parents=[common], help="create a token and print it, this once")
    create.add_argument("name", help="whom it is for; two tokens of a name may be active")
    create.add_argument("--role", required=True, choices=("viewer", "operator", "worker", "admin"))
    create.add_argument("--expires", type=_duration, metavar="90d", help="default: it does not expire")
    listing = actions.add_parser("list", parents=[common], help="list tokens, without their secrets")
    listing.add_argument("--all", action="store_true", help="also those that are revoked or expired")
    revoke = actions.add_parser("revoke", parents=[common], help="revoke a token")
    revoke.add_argument("token_id", help="as `playhead token list` shows it")

    keys = commands.add_parser("keys", help="the keys that encrypt credentials and keychain: status, rotation")
    actions = keys.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("status", parents=[common], help="count what each key encrypts")
    actions.add_parser("rotate", parents=[common], help="encrypt everything with the first key of NOETL_ENCRYPTION_KEY")


def _admin_token(server: str, data_dir: Path) -> str:
    """Return NOETL_ADMIN_TOKEN, what its file holds, or, for a server on this machine, the token of `playhead dev`."""
    given = os.environ.get("NOETL_ADMIN_TOKEN", "").strip()
    if given:
        return given
    file = os.environ.get("NOETL_ADMIN_TOKEN_FILE")
    places = [Path(file)] if file else []
    if (urlsplit(server).hostname or "") in LOOPBACK_HOSTS:
        places.append(data_dir / ADMIN_TOKEN_FILE)
    for place in places:
        if place.is_file():
            return place.read_text(encoding="utf-8").strip()
    return ""


def _row(token: dict[str, Any]) -> str:
    state = "revoked" if token["revoked_at"] else f"expires {token['expires_at'] or 'never'}"
    used = f"last used {token['last_used_at'] or 'never'}"
    return f"{token['token_id']}  {token['name']:<24} {token['role']:<9} {state}, {used}, by {token['created_by']}"


async def _token(api: PublicApi, options: argparse.Namespace) -> list[str]:
    match options.action:
        case "create":
            body = {"name": options.name, "role": options.role, "ttl_seconds": options.expires}
            made = await api.request("POST", "/api/tokens", body)
            sys.stderr.write(f"{_row(made)}\nThe token is shown this once:\n")
            return [made["token"]]
        case "list":
            answer = await api.request("GET", "/api/tokens" + ("?all=true" if options.all else ""))
            return [_row(token) for token in answer["tokens"]]
        case _:
            return [_row(await api.request("DELETE", f"/api/tokens/{quote(options.token_id, safe='')}"))]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} by {key}" for key, number in sorted(counts.items())) or "nothing stored"


async def _keys(api: PublicApi, options: argparse.Namespace) -> list[str]:
    if options.action == "rotate":
        await _rotate(api)
    status = await api.request("GET", "/api/internal/wallet/key-status")
    lines = [f"writing with  {status['current'] or 'no key: NOETL_ENCRYPTION_KEY is not set'}"]
    lines += [f"configured    {', '.join(status['keys']) or 'none'}"]
    lines += [f"{table:<13} {_counts(status[table])}" for table in ("credential", "keychain")]
    return lines + [f"problem       {problem}" for problem in status["problems"]]


async def _rotate(api: PublicApi) -> None:
    """Call until nothing is left to do; what cannot be decrypted is counted and left."""
    for _ in range(ROTATE_CALLS_MAX):
        answer = await api.request("POST", "/api/internal/wallet/rotate-kek", {"max_batches": ROTATE_BATCHES})
        for table in ("credential", "keychain"):
            done = answer[table]
            sys.stderr.write(f"{table}: {done['rewrapped']} encrypted anew, {done['failed']} failed\n")
        if not answer["more"]:
            return


async def _run(server: str, options: argparse.Namespace) -> list[str]:
    import aiohttp

    from services.dev.client import PublicApi

    async with aiohttp.ClientSession() as session:
        api = PublicApi(session, server, _admin_token(server, options.data_dir))
        return await (_token if options.command == "token" else _keys)(api, options)


def run_admin(options: argparse.Namespace, default_server: str) -> int:
    """Run one of the commands and return its exit code: 0 done, 1 refused."""
    from services.dev.client import RequestError

    server = options.server or os.environ.get("NOETL_SERVER_URL") or default_server
    try:
        lines = asyncio.run(_run(server, options))
    except RequestError as error:
        sys.stderr.write(f"playhead {options.command}: {error}\n")
        return 1
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0
