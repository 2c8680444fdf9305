"""The engine at length, for `bench.run`: large parallel loops, a long chain, a wide fan-out."""

from __future__ import annotations

import asyncio
import time

import aiohttp

POLL_SECONDS = 0.2  # between two looks at a status; a stream of all events would be a load of its own
SECONDS_MAX = 1800.0  # of one execution

LOOP = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: loop, path: bench/loop}
workload: {items: 10}
workflow:
  - step: start
    loop: {in: "{{ workload.items }}", iterator: n, spec: {mode: parallel, max_in_flight: 100}}
    tool: {kind: noop}
    next: {arcs: [{step: end}]}
  - step: end
    tool: {kind: noop}
"""


def chain(length: int) -> str:
    """Return a playbook of `length` steps in a row."""
    head = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: chain, path: bench/chain}\nworkflow:\n"
    steps = [
        f"  - {{step: s{n}, tool: {{kind: noop}}, next: {{arcs: [{{step: s{n + 1}}}]}}}}\n" for n in range(length - 1)
    ]
    return head + "".join(steps) + f"  - {{step: s{length - 1}, tool: {{kind: noop}}}}\n"


async def seconds_of(session: aiohttp.ClientSession, api: str, path: str, payload: dict[str, object]) -> float:
    """Run a playbook to its end and return the seconds it took."""
    started = time.perf_counter()
    async with session.post(f"{api}/api/execute", json={"path": path, "payload": payload}) as response:
        answer = await response.json()
        assert response.status == 200, answer
    async with asyncio.timeout(SECONDS_MAX):
        while True:
            async with session.get(f"{api}/api/executions/{answer['execution_id']}/status") as response:
                status = (await response.json())["status"]
            if status != "RUNNING":
                assert status == "COMPLETED", status
                return time.perf_counter() - started
            await asyncio.sleep(POLL_SECONDS)


async def bench_loop(session: aiohttp.ClientSession, api: str, items: int) -> None:
    """Print items per second of one parallel loop of no-ops."""
    seconds = await seconds_of(session, api, "bench/loop", {"items": items})
    print(f"(e) loop of {items:<7}      {items / seconds:8.1f} items/s   {seconds:7.2f} s   max_in_flight 100")


async def bench_chain(session: aiohttp.ClientSession, api: str, length: int) -> None:
    """Print the time of a chain of no-ops."""
    seconds = await seconds_of(session, api, "bench/chain", {})
    print(f"(f) chain of {length} steps   {seconds:7.2f} s   {seconds / length * 1000:6.1f} ms a step")
