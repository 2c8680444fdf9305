"""The `playhead` command."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from services.dev.admin import add_commands as add_admin_commands
from services.dev.admin import run_admin
from services.dev.parity.command import add_parity_command

DEFAULT_SERVER = "http://127.0.0.1:8082"
SERVICES = ("api", "outbox", "orchestrator", "projector", "worker", "migrate")
USAGE_EXIT = 2


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 <= int(text[:6]) <= 65_535:
        raise argparse.ArgumentTypeError("must be 0 (any free port) to 65535")
    return int(text)


def _workers(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 <= int(text[:6]) <= 64:
        raise argparse.ArgumentTypeError("must be 0 to 64")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(prog="playhead", description="Control plane for event-sourced playbooks.")
    made.add_argument("--version", action="version", version=version("playhead"))
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True)

    dev = commands.add_parser("dev", help="run everything on this machine, Postgres and NATS included")
    dev.add_argument("--data-dir", type=Path, default=Path(".playhead"), metavar="D", help="default: .playhead")
    dev.add_argument("--port", type=_port, default=8082, metavar="P", help="API; 0 = any free port; default: 8082")
    dev.add_argument("--nats-port", type=_port, default=4222, metavar="N", help="default: 4222")
    dev.add_argument("--monitor-port", type=_port, default=8222, metavar="M", help="NATS monitor; default: 8222")
    dev.add_argument("--workers", type=_workers, default=1, metavar="W", help="worker processes; default: 1")
    dev.add_argument("--ready-file", type=Path, metavar="F", help="written as JSON when everything is ready")
    dev.add_argument("--quiet", action="store_true", help="do not pass the services' log lines through")
    dev.add_argument("--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))

    run = commands.add_parser("run", help="register and execute a playbook, and follow it live")
    run.add_argument("file", type=Path, metavar="FILE.yaml")
    run.add_argument("--set", action="append", default=[], metavar="K=V", help="one value of the workload; repeatable")
    run.add_argument("--payload", metavar="JSON", help="object merged over the workload")
    run.add_argument("--server", metavar="URL", help=f"default: NOETL_SERVER_URL, else {DEFAULT_SERVER}")
    run.add_argument("--json", action="store_true", help="print one JSON document at the end and nothing else")
    run.add_argument("--no-follow", action="store_true", help="start it and return")

    demo = commands.add_parser("demo", help="start a stack, run one playbook, stop the stack")
    demo.add_argument("file", type=Path, metavar="FILE.yaml")
    demo.add_argument("--data-dir", type=Path, default=Path(".playhead/demo"), metavar="D")

    lint = commands.add_parser("lint", help="check playbook files, without a server")
    lint.add_argument("files", nargs="+", metavar="FILE", help="file, directory, or - for the standard input")
    lint.add_argument("--json", action="store_true", help="print the report as one JSON document")
    lint.add_argument("--strict", action="store_true", help="warnings are errors")
    add_parity_command(commands)
    commands.add_parser("schema", help="print the JSON Schema of the playbook language, for editors")

    add_admin_commands(commands, DEFAULT_SERVER)
    for name in SERVICES[:-1]:
        commands.add_parser(name, help=f"run the {name} service, configured by the environment")
    commands.add_parser("migrate", help="bring the database schema up to date")
    commands.add_parser("settings", help="list every setting with its default, meaning and value")
    commands.add_parser("version", help="print the version")
    return made


def without_password(dsn: str) -> str:
    """Return a database URL that can be shown; the whole one is in the ready file."""
    scheme, separator, rest = dsn.partition("://")
    login, at, place = rest.rpartition("@")
    return f"{scheme}{separator}{login.partition(':')[0]}{at}{place}"


def _dev(options: argparse.Namespace) -> int:
    from services.dev.supervisor import DevOptions, ReadyInfo, run_stack

    def on_ready(info: ReadyInfo) -> None:
        lines = (
            "",
            "Playhead is ready. Ctrl-C stops it; the data stays.",
            f"  API       {info.api_url}   (docs: {info.api_url}/docs)",
            f"  NATS      {info.nats_url}   (monitor: {info.nats_monitor_url})",
            f"  Postgres  {without_password(info.postgres_dsn)}",
            "  try       playhead run examples/hello_world.yaml"
            + ("" if info.api_url == DEFAULT_SERVER else f" --server {info.api_url}"),
            "",
        )
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()

    async def main() -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        return await run_stack(
            DevOptions(
                data_dir=options.data_dir,
                port=options.port,
                nats_port=options.nats_port,
                monitor_port=options.monitor_port,
                workers=options.workers,
                ready_file=options.ready_file,
                quiet=options.quiet,
                log_level=options.log_level,
            ),
            stop,
            on_ready=on_ready,
        )

    return asyncio.run(main())


def _run(options: argparse.Namespace) -> int:
    from services.dev.run import RunOptions, UsageError, payload_of, run_playbook

    try:
        payload = payload_of(options.payload, options.set)
    except UsageError as error:
        sys.stderr.write(f"playhead run: {error}\n")
        return USAGE_EXIT
    server = options.server or os.environ.get("NOETL_SERVER_URL") or DEFAULT_SERVER
    return run_playbook(
        RunOptions(
            file=options.file, server=server, payload=payload, as_json=options.json, follow=not options.no_follow
        )
    )


def _demo(options: argparse.Namespace) -> int:
    from services.dev.demo import run_demo

    return run_demo(options.file, options.data_dir)


def _lint(options: argparse.Namespace) -> int:
    from services.dev.lint import run_lint

    return run_lint(options.files, strict=options.strict, as_json=options.json)


def _schema(_: argparse.Namespace) -> int:
    from shared.engine.schema import schema_text

    sys.stdout.write(schema_text())
    return 0


def _admin(options: argparse.Namespace) -> int:
    return run_admin(options, DEFAULT_SERVER)


def _settings(_: argparse.Namespace) -> int:
    from services.dev.settings_page import settings_page

    sys.stdout.write(settings_page() + "\n")
    return 0


def _version(_: argparse.Namespace) -> int:
    sys.stdout.write(version("playhead") + "\n")
    return 0


def _parity(options: argparse.Namespace) -> int:
    from services.dev.parity.command import run_parity_command

    return run_parity_command(options)


def _service(name: str) -> Callable[[argparse.Namespace], int]:
    """Return the entry point of one service; only that service is imported."""

    def start(_: argparse.Namespace) -> int:
        from importlib import import_module

        module = import_module("services.api.app" if name == "migrate" else f"services.{name}.app")
        entry: Callable[[], int] = module.migrate if name == "migrate" else module.run
        return entry()

    return start


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = parser().parse_args(arguments)
    handlers: dict[str, Callable[[argparse.Namespace], int]] = {
        "dev": _dev,
        "run": _run,
        "demo": _demo,
        "lint": _lint,
        "schema": _schema,
        "token": _admin,
        "keys": _admin,
        "parity": _parity,
        "settings": _settings,
        "version": _version,
        **{name: _service(name) for name in SERVICES},
    }
    return handlers[options.command](options)


if __name__ == "__main__":
    sys.exit(main())
