"""What the API process tells about itself."""

from __future__ import annotations

import importlib.util
import os

from tests.support.api import RunningApi


async def test_figures_are_of_this_process(shared_api: RunningApi) -> None:
    status, answer = await shared_api.request("GET", "/api/status")
    assert status == 200
    assert answer["process"]["pid"] == os.getpid()
    assert answer["process"]["memory_rss_mb"] > 1
    assert 0 < answer["system"]["memory_percent"] <= 100


async def test_threads_are_shown_with_their_stacks(shared_api: RunningApi) -> None:
    status, found = await shared_api.request("GET", "/api/threads")
    assert status == 200
    (main,) = [item for item in found if item["name"] == "MainThread"]
    assert main["is_alive"] is True
    assert any("format_stack" in line for line in main["stack_trace"])


async def test_a_memory_profile_is_made_or_what_it_needs_is_said(shared_api: RunningApi) -> None:
    installed = importlib.util.find_spec("memray") is not None
    _, before = await shared_api.request("GET", "/api/profiler/status")
    assert before == {
        "memray_available": installed,
        "profiling_active": False,
        "file_path": None,
        "start_time": None,
    }
    if not installed:
        said = {"detail": "Memray is not installed. Install it to use memory profiler."}
        for verb in ("start", "stop"):
            assert await shared_api.request("POST", f"/api/profiler/memory/{verb}") == (503, said)
        return
    assert (await shared_api.request("POST", "/api/profiler/memory/stop"))[0] == 409
    status, started = await shared_api.request("POST", "/api/profiler/memory/start")
    assert (status, started["status"]) == (200, "success")
    _, during = await shared_api.request("GET", "/api/profiler/status")
    assert (during["profiling_active"], during["file_path"]) == (True, started["file_path"])
    assert (await shared_api.request("POST", "/api/profiler/memory/start"))[0] == 409
    async with shared_api.session.post(shared_api.url + "/api/profiler/memory/stop") as response:
        data = await response.read()
        assert (response.status, response.content_type) == (200, "application/octet-stream")
    assert b"memray" in data[:64]
    _, after = await shared_api.request("GET", "/api/profiler/status")
    assert after == before
