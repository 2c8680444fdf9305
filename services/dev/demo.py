"""`playhead demo`: start a stack of its own, run one playbook, show it, stop the stack."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from services.dev.processes import ADMIN_TOKEN_FILE
from services.dev.run import RunOptions, run_playbook

READY_SECONDS_MAX = 120.0  # the first start makes a database cluster
READY_POLL_SECONDS = 0.05
STOP_SECONDS_MAX = 15.0  # a stop takes 10 s at most


def run_demo(file: Path, data_dir: Path) -> int:
    """Run `file` on an embedded stack in `data_dir` and return the exit code of `playhead run`."""
    with tempfile.TemporaryDirectory(prefix="playhead-demo-") as directory:
        ready_file = Path(directory) / "ready.json"
        command = [sys.executable, "-m", "services.dev.cli", "dev", "--quiet", "--data-dir", str(data_dir)]
        command += ["--port", "0", "--nats-port", "0", "--monitor-port", "0", "--ready-file", str(ready_file)]
        sys.stdout.write("starting Postgres, NATS and the services ...\n")
        sys.stdout.flush()
        stack = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 - our own program
        try:
            deadline = time.monotonic() + READY_SECONDS_MAX
            while not ready_file.exists() and stack.poll() is None and time.monotonic() < deadline:
                time.sleep(READY_POLL_SECONDS)
            if not ready_file.exists():
                sys.stderr.write(f"playhead demo: the stack did not start; see {data_dir}/logs\n")
                return 1
            api_url = json.loads(ready_file.read_text())["api_url"]
            sys.stdout.write(f"ready: {api_url}\n\n")
            token = (data_dir / ADMIN_TOKEN_FILE).read_text(encoding="ascii").strip()
            return run_playbook(RunOptions(file=file, server=api_url, token=token))
        finally:
            stack.terminate()
            stack.wait(STOP_SECONDS_MAX)
