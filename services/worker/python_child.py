"""A child process that runs the code of python tools, one job after the other. Standard library only.

Frames on both pipes: 4 bytes length, big endian, then JSON. A job is `{code, input, names, libs, result_max_bytes}`; the
answer `{ok, value?, stdout, error?: {code, message, traceback}}`. The first frame, `{ready: true}`, says that it listens.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import contextlib
import ctypes
import datetime
import importlib
import inspect
import io
import json
import linecache
import os
import resource
import signal
import struct
import sys
import traceback
import types
import uuid
from collections.abc import Iterator, Mapping
from types import CodeType
from typing import Any, BinaryIO

from services.worker.limits import STDOUT_MAX_CHARS, TRACEBACK_FRAMES_MAX, TRACEBACK_MAX_CHARS
from services.worker.plain import to_plain

FILENAME = "<python tool>"
LENGTH = struct.Struct(">I")
MODULE = "__noetl__"
_RETURN = "__playhead_return__"
_PR_SET_PDEATHSIG = 1
_MISSING = object()
_KNOWN = {"json": json, "os": os, "datetime": datetime, "uuid": uuid}  # modules that the original has there unasked


class _Returned(BaseException):
    """Carries the value of a `return` at the top level; no Exception, so that user code does not catch it."""

    def __init__(self, value: Any = None) -> None:
        super().__init__()
        self.value = value


class _Returns(ast.NodeTransformer):
    """Turns every `return` outside a function into a call that raises `_Returned`."""

    def visit_Return(self, node: ast.Return) -> ast.AST:
        call = ast.Call(ast.Name(_RETURN, ast.Load()), [node.value] if node.value else [], [])
        return ast.copy_location(ast.Expr(call), node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return node


class _Prints(io.TextIOBase):
    """Keeps the first `STDOUT_MAX_CHARS` characters of what is printed."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._left = STDOUT_MAX_CHARS

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._left > 0:
            self._parts.append(text[: self._left])
            self._left -= len(text)
        return len(text)

    def text(self) -> str:
        return "".join(self._parts)


def _raise_returned(value: Any = None) -> None:
    raise _Returned(value)


def _compiled(code: str) -> CodeType:
    tree = ast.fix_missing_locations(_Returns().visit(ast.parse(code, FILENAME)))
    linecache.cache[FILENAME] = (len(code), None, code.splitlines(keepends=True), FILENAME)
    return compile(tree, FILENAME, "exec")


def _imported(libs: Mapping[str, Any]) -> dict[str, Any]:
    """Import `{name: "module"}` and `{name: {"from": "module", "import": ["a", "b"]}}`."""
    names: dict[str, Any] = {}
    for name, what in libs.items():
        if isinstance(what, Mapping):
            module = importlib.import_module(str(what["from"]))
            wanted = what.get("import", [])
            for member in [wanted] if isinstance(wanted, str) else wanted:
                names[str(member)] = getattr(module, str(member))
        else:
            names[name] = importlib.import_module(str(what or name))
    return names


def _call_main(main: Any, known: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """Call `main` with the input as keywords: all of it when it takes any, else those that it names."""
    parameters = inspect.signature(main).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        keywords = dict(given)
    else:
        usable = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        keywords = {p.name: known[p.name] for p in parameters if p.kind in usable and p.name in known}
    value = main(**keywords)
    return asyncio.run(_awaited(value)) if inspect.isawaitable(value) else value


async def _awaited(value: Any) -> Any:
    return await value


def run_code(job: Mapping[str, Any]) -> Any:
    """Run the code of `job` and return its value: the variable `result`, a top-level `return`, or `main(**input)`.

    Code without any of them returns the original's summary of its variables.
    """
    given: Mapping[str, Any] = job["input"]
    known = {**job.get("names", {}), "input_data": dict(given), "args": dict(given), **given}
    module = types.ModuleType(MODULE)  # a real module: dataclasses and pickle look theirs up by name
    sys.modules[MODULE] = module
    space = module.__dict__
    space |= {"__builtins__": builtins, **_KNOWN, _RETURN: _raise_returned, **known}
    space |= _imported(job.get("libs") or {})
    before = set(space)
    if "result" not in given:
        space.pop("result", None)
    try:
        exec(_compiled(job["code"]), space)  # noqa: S102 - running the playbook author's code is what this tool is for
    except _Returned as returned:
        return returned.value
    result = space.get("result", _MISSING)
    if result is not _MISSING and ("result" not in given or result is not given["result"]):
        return result
    main = space.get("main")
    if callable(main) and "main" not in given:
        return _call_main(main, known, given)
    new = [name for name in space if name not in before and not name.startswith("__")]
    return {
        "status": "success",
        "message": "Code executed without explicit result variable",
        "locals_count": len(new),
        "locals_keys": new[:100],
    }


def _failure(error: BaseException) -> dict[str, str]:
    """Describe `error`; the traceback shows lines of user code only."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == FILENAME]
    lines = traceback.format_list(frames[-TRACEBACK_FRAMES_MAX:])
    lines += traceback.format_exception_only(type(error), error)
    name = type(error).__name__
    return {"code": name, "message": str(error) or name, "traceback": "".join(lines)[-TRACEBACK_MAX_CHARS:]}


@contextlib.contextmanager
def _restored(prints: _Prints) -> Iterator[None]:
    """Catch what is printed, and undo afterwards what code may change for the next job."""
    environment, directory = dict(os.environ), os.getcwd()  # noqa: PTH109 - a child of its own, no event loop
    try:
        with contextlib.redirect_stdout(prints), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        with contextlib.suppress(OSError):
            os.chdir(directory)


@contextlib.contextmanager
def _surrounded(job: Mapping[str, Any]) -> Iterator[None]:
    """Run in the environment, directory and memory limit (bytes of address space) that the job asks for, within ours."""
    os.environ.update(job.get("env") or {})
    if job.get("cwd"):
        os.chdir(job["cwd"])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = job.get("memory_bytes")
    if wanted:
        resource.setrlimit(resource.RLIMIT_AS, (wanted if soft < 0 else min(wanted, soft), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def answer(job: Mapping[str, Any]) -> bytes:
    """Run a job and return the JSON of its answer, at most `result_max_bytes` of output in it."""
    prints = _Prints()
    try:
        with _restored(prints), _surrounded(job):
            value = run_code(job)
            if isinstance(value, dict) and value.get("message") and "locals_count" in value and prints.text():
                value = {**value, "stdout": prints.text()}
            encoded = json.dumps(to_plain(value), ensure_ascii=False, allow_nan=False).encode()
        if len(encoded) > job["result_max_bytes"]:
            text = f"the output has {len(encoded)} bytes; at most {job['result_max_bytes']} are allowed"
            return _encode(
                {"ok": False, "stdout": prints.text(), "error": {"code": "RESULT_TOO_LARGE", "message": text}}
            )
        head = _encode({"ok": True, "stdout": prints.text()})
        return head[:-1] + b',"value":' + encoded + b"}"
    except BaseException as error:  # noqa: BLE001 - the boundary of user code: SystemExit must not end the child either
        return _encode({"ok": False, "stdout": prints.text(), "error": _failure(error)})


def _encode(document: Mapping[str, Any]) -> bytes:
    return json.dumps(to_plain(document), ensure_ascii=False).encode()


def _read(pipe: BinaryIO) -> bytes | None:
    head = pipe.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    body = pipe.read(length)
    return body if len(body) == length else None


def _write(pipe: BinaryIO, body: bytes) -> None:
    pipe.write(LENGTH.pack(len(body)) + body)
    pipe.flush()


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Move the protocol off descriptors 0 and 1, so that nothing user code starts can read or write it."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    return requests, answers


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent `parent` ends; Linux only, elsewhere the closed pipe ends it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main(arguments: list[str]) -> int:
    """Serve jobs until the pipe closes. Arguments: the parent's process id, the address space at most (bytes)."""
    parent, memory_bytes = int(arguments[0]), int(arguments[1])
    die_with_parent(parent)
    requests, answers = _private_pipes()
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _write(answers, b'{"ready":true}')
    frame = _read(requests)
    while frame is not None:
        _write(answers, answer(json.loads(frame)))
        frame = _read(requests)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
