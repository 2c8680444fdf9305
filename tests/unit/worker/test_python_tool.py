"""The python tool against real child processes."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
from pathlib import Path

import pytest

from services.worker.python_pool import PythonPool
from services.worker.tools import ToolBox, ToolError
from tests.unit.worker.conftest import MEMORY_BYTES, RESULT_MAX_BYTES, Call


@pytest.mark.parametrize(
    ("code", "given", "expected"),
    [
        ("result = {'n': x + 1}", {"x": 2}, {"n": 3}),
        ("result = None", {}, None),
        ("result = input_data['a'] + args['a']", {"a": 2}, 4),
        ("def main(a, b=5):\n    return a * b", {"a": 3, "unused": 1}, 15),
        ("def main(**kwargs):\n    return kwargs", {"a": 3}, {"a": 3}),
        ("async def main(a):\n    return a", {"a": 3}, 3),
        ("def main(input_data):\n    return input_data", {"a": 3}, {"a": 3}),
        ("if x > 1:\n    return {'big': True}\nresult = 0", {"x": 2}, {"big": True}),
        ("try:\n    return 7\nexcept Exception:\n    result = 0", {}, 7),
        ("def f():\n    return 1\nresult = f()", {}, 1),
        ("result = [float('nan'), {3, 1}, b'x', (1, 2)]", {}, [None, [1, 3], "x", [1, 2]]),
        ("import datetime\nresult = datetime.date(2026, 1, 2)", {}, "2026-01-02"),
        ("result = {1: 2**80}", {}, {"1": str(2**80)}),
        ("result = 'é\\ud800'", {}, "é?"),
        ("result = [i for i in range(n) if i % k]", {"n": 5, "k": 2}, [1, 3]),
        (
            "from __future__ import annotations\nfrom dataclasses import dataclass\n"
            "@dataclass\nclass A:\n    x: int\nresult = A(1)",
            {},
            {"x": 1},
        ),
    ],
)
async def test_value(call: Call, code: str, given: dict[str, object], expected: object) -> None:
    assert await call("python", code=code, given=given) == expected


async def test_base64_args_libs_and_context(call: Call) -> None:
    code = base64.b64encode(b"result = [a, m.sqrt(4), context['workload']['w'], dumps(1)]").decode()
    libs = {"m": "math", "json": {"from": "json", "import": ["dumps"]}}
    given = {"a": 0, "__loop_epoch_id": "x"}
    result = await call("python", code_b64=code, args={"a": 9}, libs=libs, given=given, context={"workload": {"w": 1}})
    assert result == [9, 2.0, 1, "1"]


async def test_no_result_gives_the_summary_and_the_prints(call: Call) -> None:
    result = await call("python", code="a = 1\nprint('hello')")
    assert result["status"] == "success"
    assert result["locals_keys"] == ["a"]
    assert result["stdout"] == "hello\n"


async def test_prints_and_subprocess_output_do_not_reach_the_protocol(call: Call) -> None:
    code = (
        "import os, sys\nprint('x' * 100000)\nos.write(1, b'junk')\nos.system('echo junk')\nresult = sys.stdin.read()"
    )
    assert await call("python", code=code) == ""


@pytest.mark.parametrize(
    ("code", "name", "message"),
    [
        ("raise ValueError('boom')", "ValueError", "boom"),
        ("1 +", "SyntaxError", "invalid syntax"),
        ("import sys\nsys.exit(3)", "SystemExit", "3"),
        ("class A:\n    return 1", "SyntaxError", "outside function"),
        ("result = []\nresult.append(result)", "NotPlainError", "contains itself"),
        ("x = bytearray(1 << 40)", "MemoryError", "MemoryError"),
        (f"result = 'x' * {RESULT_MAX_BYTES}", "RESULT_TOO_LARGE", "at most"),
    ],
)
async def test_failure(call: Call, code: str, name: str, message: str) -> None:
    with pytest.raises(ToolError) as failure:
        await call("python", code=code)
    assert failure.value.code == name
    assert message in failure.value.message
    assert await call("python", code="result = 1") == 1


async def test_traceback_has_user_code_only(call: Call) -> None:
    with pytest.raises(ToolError) as failure:
        await call("python", code="def f():\n    raise KeyError('k')\nf()")
    shown = failure.value.data["traceback"] if failure.value.data else ""
    assert "line 2, in f" in shown
    assert "raise KeyError('k')" in shown
    assert "python_child" not in shown


async def test_time_limit_kills_the_child_and_what_it_started(call: Call, box: ToolBox) -> None:
    before = set(box.python.pids)
    with pytest.raises(ToolError) as failure:
        await call("python", code="import subprocess\nsubprocess.run(['sleep', '60'])", seconds=0.3)
    assert failure.value.code == "TIMEOUT"
    assert len(before & set(box.python.pids)) == len(before) - 1
    assert await call("python", code="result = 1") == 1


async def test_a_child_that_dies_is_an_error_and_is_replaced(call: Call, box: ToolBox) -> None:
    with pytest.raises(ToolError) as failure:
        await call("python", code="import os\nos._exit(9)")
    assert failure.value.code == "PROCESS_DIED"
    for pid in box.python.pids:
        os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        tasks = [group.create_task(_until_one(call)) for _ in range(4)]
    assert [task.result() for task in tasks] == [1] * 4


async def _until_one(call: Call) -> object:
    for _ in range(3):  # a child killed a moment ago may still look alive
        try:
            return await call("python", code="result = 1")
        except ToolError:
            continue
    return None


async def test_environment_directory_and_secrets_are_not_shared(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOETL_INTERNAL_API_TOKEN", "secret")
    pool = PythonPool(processes=1, memory_bytes=MEMORY_BYTES, result_max_bytes=RESULT_MAX_BYTES)
    async with pool:
        code = (
            "import os\nresult = [os.environ.get(name) for name in ('NOETL_INTERNAL_API_TOKEN', 'LEFT')]\n"
            "os.environ['LEFT'] = '1'"
        )
        job = {"code": code, "input": {}, "names": {}, "libs": {}}
        assert [(await pool.run(job, 10))["value"] for _ in range(2)] == [[None, None]] * 2
        pids = pool.pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_bad_config(call: Call) -> None:
    for config in ({}, {"code_b64": "%%"}):
        with pytest.raises(ToolError) as failure:
            await call("python", **config)
        assert failure.value.code == "BAD_CONFIG"


async def test_scripts(call: Call, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text("def main(name):\n    return {'hello': name}\n")
    script = {"uri": str(tmp_path / "s.py"), "source": {"type": "file"}}
    assert await call("python", script=script, input={"name": "you"}) == {"hello": "you"}
    inline = {"uri": "inline", "source": {"type": "inline", "code": "result = 1"}}
    assert await call("python", script=inline) == 1
    for wrong in (
        {"uri": str(tmp_path / "none.py")},
        {"uri": "gs://bucket/s.py", "source": {"type": "gcs"}},
        {"uri": "x", "source": {"type": "carrier pigeon"}},
        {"source": {"type": "file"}},
        7,
    ):
        with pytest.raises(ToolError) as failure:
            await call("python", script=wrong)
        assert failure.value.code == "SCRIPT"


async def test_environment_directory_and_memory_of_one_call(call: Call, tmp_path: Path) -> None:
    code = "import os\nresult = [os.environ.get('PLAYHEAD_TEST_A'), os.getcwd()]"
    assert await call("python", code=code, env={"PLAYHEAD_TEST_A": 1}, cwd=str(tmp_path)) == ["1", str(tmp_path)]
    assert (await call("python", code=code))[0] is None
    hungry = "x = bytearray(200 << 20)\nresult = len(x)"
    with pytest.raises(ToolError) as failure:
        await call("python", code=hungry, memory_bytes=150 << 20)
    assert failure.value.code == "MemoryError"
    assert await call("python", code=hungry) == 200 << 20
    for wrong in ({"memory_bytes": 1}, {"env": 3}):
        with pytest.raises(ToolError) as failure:
            await call("python", code="result = 1", **wrong)
        assert failure.value.code == "BAD_CONFIG"


async def test_code_that_eats_memory_ends_and_the_worker_goes_on(call: Call, box: ToolBox) -> None:
    with pytest.raises(ToolError) as failure:
        await call("python", code="held = []\nwhile True:\n    held.append(bytearray(1 << 20))", seconds=60)
    assert failure.value.code in ("MemoryError", "PROCESS_DIED")


async def test_modules_and_names_that_the_original_has_unasked(call: Call) -> None:
    code = "result = [json.dumps(1), os.sep, datetime.date(2026, 1, 2).year, uuid.UUID(int=0).version]"
    assert await call("python", code=code) == ["1", "/", 2026, None]
    main = "def main(a, patient_id, page=1):\n    return [a, patient_id, page]"
    assert await call("python", code=main, given={"a": 0}, context={"a": 9, "patient_id": 7, "other": 1}) == [0, 7, 1]
    with pytest.raises(ToolError) as failure:
        await call("python", code=main, given={"a": 0})
    assert "patient_id" in failure.value.message
