"""`make bench`: start a stack of its own, measure (a)..(d), print a table. See bench/README.md for results.

(a) POST /api/events at 50 keep-alive connections, beside the same loop without a database, in one run
(b) latency from POST /api/execute to completed for a 2-step playbook
(c) executions per second: 200 one-step playbooks, 8 at a time
(d) a parallel fan-out with a join
(e) a parallel loop of no-ops, `--items` of them
(f) a chain of steps
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

from bench.load import percentile, run_load
from bench.loops import LOOP, bench_chain, bench_loop, chain
from bench.processes import difference, snapshot

READY_SECONDS_MAX = 90.0
EXECUTION_SECONDS_MAX = 60.0
TERMINAL = ("playbook.completed", "playbook.failed", "execution.cancelled")

STEP = "  - step: {name}\n    tool:\n      kind: {kind}\n{body}{next}"


def step(name: str, targets: list[str], kind: str = "python") -> str:
    body = '      code: |\n        result = {"n": 1}\n' if kind == "python" else ""
    arcs = "".join(f"        - step: {target}\n" for target in targets)
    mode = "      spec: {mode: inclusive}\n" if len(targets) > 1 else ""
    return STEP.format(name=name, kind=kind, body=body, next=f"    next:\n{mode}      arcs:\n{arcs}" if targets else "")


def document(name: str, steps: list[str]) -> str:
    return (
        f"apiVersion: noetl.io/v2\nkind: Playbook\nmetadata:\n  name: {name}\n  path: bench/{name}\nworkflow:\n"
        + "".join(steps)
    )


def playbooks(fan: int) -> dict[str, str]:
    branches = [f"branch_{index}" for index in range(fan)]
    return {
        "one_step": document("one_step", [step("start", [])]),
        "two_step": document("two_step", [step("start", ["finish"]), step("finish", [])]),
        "fan_out": document(
            "fan_out", [step("start", branches), *[step(name, ["join"], "noop") for name in branches], step("join", [])]
        ),
    }


async def post(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> dict[str, Any]:
    async with session.post(url, json=body) as response:
        answer: dict[str, Any] = await response.json()
        assert response.status < 300, answer
        return answer


async def execute_and_follow(session: aiohttp.ClientSession, api: str, path: str) -> float:
    """Return the seconds from the request to the arrival of the terminal event."""
    started = time.perf_counter()
    execution = (await post(session, f"{api}/api/execute", {"path": path}))["execution_id"]
    async with (
        asyncio.timeout(EXECUTION_SECONDS_MAX),
        session.get(f"{api}/api/executions/{execution}/events/stream") as response,
    ):
        async for line in response.content:
            if line.startswith(b"event: ") and line[7:].strip().decode() in TERMINAL:
                assert b"completed" in line, f"{execution}: {line!r}"
                break
    return time.perf_counter() - started


async def bench_events(session: aiohttp.ClientSession, api: str, requests: int) -> None:
    ids = [(await post(session, f"{api}/api/execute", {"path": "bench/one_step"}))["execution_id"] for _ in range(50)]
    bodies = [
        json.dumps(
            {
                "execution_id": item,
                "step": "start",
                "name": "progress",
                "payload": {"done": 1, "note": "bench"},
                "worker_id": "b",
            }
        ).encode()
        for item in ids
    ]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    baseline = subprocess.Popen([sys.executable, "-m", "bench.baseline", str(port)])
    try:
        await wait_http(session, f"http://127.0.0.1:{port}/api/events")
        for _ in range(2):  # paired: the first pair warms up
            plain = await run_load(f"http://127.0.0.1:{port}/api/events", bodies, connections=50, requests=requests)
            real = await run_load(f"{api}/api/events", bodies, connections=50, requests=requests)
    finally:
        baseline.terminate()
        baseline.wait(10)
    print(f"(a) without a database  {plain.rate:8.0f} /s   p50 {plain.p50_ms:6.2f} ms   p99 {plain.p99_ms:6.2f} ms")
    print(
        f"    POST /api/events    {real.rate:8.0f} /s   p50 {real.p50_ms:6.2f} ms   p99 {real.p99_ms:6.2f} ms   "
        f"errors {real.errors}"
    )
    print(f"    ratio {real.rate / plain.rate:.2f}")


async def wait_http(session: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(READY_SECONDS_MAX):
        for _ in range(int(READY_SECONDS_MAX * 10)):
            try:
                async with session.get(url):
                    return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.1)


async def bench_latency(session: aiohttp.ClientSession, api: str, runs: int) -> None:
    await execute_and_follow(session, api, "bench/two_step")
    times = [await execute_and_follow(session, api, "bench/two_step") * 1000 for _ in range(runs)]
    print(
        f"(b) 2 steps             p50 {percentile(times, 0.5):6.1f} ms   p99 {percentile(times, 0.99):6.1f} ms   runs {runs}"
    )


async def bench_throughput(session: aiohttp.ClientSession, api: str, runs: int, parallel: int) -> None:
    left = iter(range(runs))

    async def client() -> None:
        for _ in left:
            await execute_and_follow(session, api, "bench/one_step")

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(parallel):
            group.create_task(client())
    seconds = time.perf_counter() - started
    print(f"(c) 1 step              {runs / seconds:8.1f} executions/s   {runs} runs, {parallel} at a time")


async def bench_fan_out(session: aiohttp.ClientSession, api: str, fan: int) -> None:
    seconds = await execute_and_follow(session, api, "bench/fan_out")
    print(f"(d) fan-out of {fan} + join  {seconds:6.2f} s   {fan / seconds:6.1f} branches/s")


async def measure(ready: dict[str, Any], arguments: argparse.Namespace) -> None:
    api = ready["api_url"]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=100)) as session:
        texts = [*playbooks(arguments.fan).values(), LOOP, chain(arguments.chain)]
        for text in texts:
            await post(session, f"{api}/api/catalog/register", {"content": text})
        for name, work in (
            ("b", lambda: bench_latency(session, api, arguments.runs)),
            ("c", lambda: bench_throughput(session, api, arguments.executions, 8)),
            ("d", lambda: bench_fan_out(session, api, arguments.fan)),
            ("e", lambda: bench_loop(session, api, arguments.items)),
            ("f", lambda: bench_chain(session, api, arguments.chain)),
            ("a", lambda: bench_events(session, api, arguments.requests)),
        ):
            if name in arguments.only:
                before = snapshot(ready["services"])
                await work()
                print("\n".join(difference(before, snapshot(ready["services"]))))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000, help="requests of (a)")
    parser.add_argument("--runs", type=int, default=50, help="executions of (b)")
    parser.add_argument("--executions", type=int, default=200, help="executions of (c)")
    parser.add_argument("--fan", type=int, default=50, help="branches of (d)")
    parser.add_argument("--items", type=int, default=10_000, help="items of (e)")
    parser.add_argument("--chain", type=int, default=200, help="steps of (f)")
    parser.add_argument("--only", default="abcdef", help="which to run, e.g. bc")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="playhead-bench-") as directory:
        Path(directory).chmod(0o755)
        ready_file = Path(directory) / "ready.json"
        command = [sys.executable, "-m", "services.dev.cli", "dev", "--data-dir", f"{directory}/data", "--port", "0"]
        command += ["--nats-port", "0", "--monitor-port", "0", "--ready-file", str(ready_file)]
        with (Path(directory) / "dev.log").open("w") as log:
            stack = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            try:
                deadline = time.monotonic() + READY_SECONDS_MAX
                while not ready_file.exists() and time.monotonic() < deadline and stack.poll() is None:
                    time.sleep(0.1)
                uvloop.run(measure(json.loads(ready_file.read_text()), arguments))
            finally:
                stack.terminate()
                stack.wait(20)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
