"""The command line of `playhead parity`. Exit codes: 0 the same, 1 something differs, 2 no comparison was possible."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SAME, DIFFERS, UNUSABLE = 0, 1, 2
BASE_TOKEN = "PLAYHEAD_PARITY_BASE_TOKEN"  # noqa: S105 - the name of a variable
AGAINST_TOKEN = "PLAYHEAD_PARITY_AGAINST_TOKEN"  # noqa: S105 - the name of a variable


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise argparse.ArgumentTypeError("must look like http://host:port")
    return text


def _bounded(low: int, high: int) -> Any:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text[:9]) <= high:
            raise argparse.ArgumentTypeError(f"must be {low} to {high}")
        return int(text)

    return parse


def add_parity_command(commands: Any) -> None:
    """Add `parity` to the subcommands."""
    made = commands.add_parser(
        "parity",
        help="send the same requests to two servers and show where the answers differ",
        description="Compare two live servers byte for byte, but for clocks, minted ids and known differences. Reads only, "
        "unless --writes is given. Exit code 0: the same; 1: something differs; 2: no comparison was possible.",
        epilog=f"Bearer tokens are read from {BASE_TOKEN} and {AGAINST_TOKEN}.",
    )
    made.add_argument("--base", type=_url, required=True, metavar="URL", help="the server that is right: the original")
    made.add_argument("--against", type=_url, required=True, metavar="URL", help="the server that is compared with it")
    made.add_argument(
        "--requests", type=Path, metavar="DIR", help="recordings (*.req.json); default: reads of what --base lists"
    )
    made.add_argument(
        "--writes", action="store_true", help="send recorded writes, too, in their order: changes both databases"
    )
    made.add_argument("--differences", type=Path, metavar="FILE", help="known differences; default: those built in")
    made.add_argument("--limit", type=_bounded(1, 200), default=20, metavar="N", help="ids of each kind; default: 20")
    made.add_argument(
        "--concurrency", type=_bounded(1, 32), default=4, metavar="N", help="requests at once; default: 4"
    )
    made.add_argument(
        "--timeout", type=_bounded(1, 86_400), default=300, metavar="S", help="seconds for everything; default: 300"
    )
    made.add_argument("--json", action="store_true", help="print one JSON document")


def run_parity_command(options: argparse.Namespace) -> int:
    """Compare, print, and return the exit code."""
    from services.dev.parity.report import as_json, as_text
    from services.dev.parity.run import ParityOptions, UnusableError, run_parity

    if options.writes and options.requests is None:
        sys.stderr.write("playhead parity: --writes needs --requests: there are no writes to invent\n")
        return UNUSABLE
    try:
        report = asyncio.run(
            run_parity(
                ParityOptions(
                    base=options.base,
                    against=options.against,
                    requests=options.requests,
                    writes=options.writes,
                    differences=options.differences,
                    ids_max=options.limit,
                    concurrency=options.concurrency,
                    seconds=float(options.timeout),
                    base_token=os.environ.get(BASE_TOKEN),
                    against_token=os.environ.get(AGAINST_TOKEN),
                )
            )
        )
    except UnusableError as error:
        sys.stderr.write(f"playhead parity: {error}\n")
        return UNUSABLE
    sys.stdout.write((as_json(report) if options.json else as_text(report)) + "\n")
    return SAME if report.same else DIFFERS
