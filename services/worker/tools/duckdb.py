"""`duckdb` and `ducklake`: SQL in a process of its own, on a file per execution unless the tool names one."""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import orjson

from services.worker.jsontext import encoded as json_bytes
from services.worker.limits import RESPONSE_OVERHEAD_BYTES
from services.worker.tools.base import ToolBox, ToolCall, ToolError
from services.worker.tools.child import run_child
from services.worker.tools.credentials import Credential, resolved
from services.worker.tools.limits import (
    DUCKDB_FILE_DAYS,
    DUCKDB_SAMPLE_ROWS,
    DUCKDB_SWEPT_MAX,
    DUCKDB_THREADS,
    SQL_PARAMS_MAX,
    SQL_STATEMENTS_SHOWN_MAX,
)
from services.worker.tools.sql_output import Result, output
from services.worker.tools.sql_text import sql_of

_MEMORY_BYTES_DEFAULT = 1 << 30
_MEMORY = ":memory:"
_SECRET_TYPES = {
    "gcs": "gcs",
    "gs": "gcs",
    "gcs_hmac": "gcs",
    "s3": "s3",
    "aws": "s3",
    "r2": "r2",
    "postgres": "postgres",
}
_SECRET_MEMBERS: Mapping[str, tuple[str, ...]] = {
    "KEY_ID": ("key_id", "access_key_id", "aws_access_key_id", "hmac_key_id"),
    "SECRET": ("secret", "secret_access_key", "aws_secret_access_key", "secret_key", "hmac_secret"),
    "REGION": ("region",),
    "ENDPOINT": ("endpoint",),
    "SCOPE": ("scope",),
    "HOST": ("db_host", "host"),
    "PORT": ("db_port", "port"),
    "DATABASE": ("db_name", "database"),
    "USER": ("db_user", "user"),
    "PASSWORD": ("db_password", "password"),
}
_open_files: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()


def data_directory(box: ToolBox) -> Path:
    """Return where tools keep files between the steps of an execution."""
    given = box.settings.noetl_worker_data_dir if box.settings else ""
    return Path(given) if given else Path(tempfile.gettempdir()) / "playhead-worker"


def _sweep(directory: Path) -> None:
    """Delete files of executions that are long over; another worker may do the same."""
    oldest = time.time() - DUCKDB_FILE_DAYS * 86_400
    for _, path in zip(range(DUCKDB_SWEPT_MAX), directory.glob("duckdb_*"), strict=False):
        try:
            if path.stat().st_mtime < oldest:
                path.unlink()
        except OSError:
            continue


def _prepared_path(call: ToolCall, box: ToolBox) -> str:
    given = call.config.get("database") or call.config.get("db_path")
    if given == _MEMORY:
        return _MEMORY
    directory = data_directory(box)
    path = directory / str(given) if given else directory / f"duckdb_{call.execution}.duckdb"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ToolError(call.kind, "DATABASE", f"the directory of the database cannot be made: {error}") from error
    if not given:
        _sweep(directory)
    return str(path)


def _literal(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"


def _name(text: str) -> str:
    return re.sub(r"\W", "_", text) or "secret"


def _secret(alias: str, credential: Credential) -> list[str]:
    """Return the statements that make a DuckDB secret of a credential; none for a type that DuckDB does not know."""
    fields = credential.fields
    kind = _SECRET_TYPES.get(str(fields.get("service") or credential.type).lower())
    if kind is None:
        return []
    members = ["TYPE " + kind]
    for name, keys in _SECRET_MEMBERS.items():
        value = next((fields[key] for key in keys if fields.get(key) not in (None, "")), None)
        is_postgres = name in ("HOST", "PORT", "DATABASE", "USER", "PASSWORD")
        if value is not None and is_postgres == (kind == "postgres"):
            members.append(f"{name} {_literal(value)}")
    extension = "postgres" if kind == "postgres" else "httpfs"
    return [
        *("INSTALL " + extension, "LOAD " + extension),
        f"CREATE OR REPLACE SECRET {_name(alias)} ({', '.join(members)})",
    ]


async def _secrets(call: ToolCall, box: ToolBox) -> list[str]:
    auth = call.config.get("auth") or call.config.get("credentials") or call.config.get("credential")
    if not auth:
        return []
    aliases: Mapping[str, Any] = {"secret": auth}
    if isinstance(auth, Mapping) and all(isinstance(value, Mapping) for value in auth.values()):
        aliases = auth
    made: list[str] = []
    for alias, one in aliases.items():
        wanted = one
        if isinstance(one, Mapping) and not one.get("credential"):
            name = one.get("key") or one.get("source")
            wanted = (
                {**{k: v for k, v in one.items() if k not in ("key", "source")}, "credential": name} if name else one
            )
        credential = await resolved(wanted, call, box)
        made += _secret(alias, credential) if credential is not None else []
    return made


def _lake(call: ToolCall, box: ToolBox) -> list[str]:
    """Return the statements that open a lake; its catalog is a file unless `catalog_connection` says where."""
    name = _name(str(call.config.get("catalog_name") or "lake"))
    data = call.config.get("data_path") or str(data_directory(box) / name)
    catalog = (
        call.config.get("catalog_connection") or call.config.get("metadata") or f"{data_directory(box)}/{name}.ducklake"
    )
    attach = f"ATTACH IF NOT EXISTS {_literal(f'ducklake:{catalog}')} AS {name} (DATA_PATH {_literal(data)})"
    return ["INSTALL ducklake", "LOAD ducklake", attach, "USE " + name]


def _params(call: ToolCall) -> list[Any]:
    params = call.config.get("params")
    if params in (None, "", [], {}):
        return []
    if not isinstance(params, list) or len(params) > SQL_PARAMS_MAX:
        raise ToolError(call.kind, "BAD_CONFIG", "`params` must be a list: the values of ?, or of $1, $2, ...")
    return params


async def _answer(call: ToolCall, box: ToolBox, path: str, setup: list[str], texts: list[str]) -> list[Result]:
    memory = box.settings.noetl_worker_python_memory_bytes // 2 if box.settings else _MEMORY_BYTES_DEFAULT
    job = {
        "path": path,
        "setup": setup,
        "statements": texts,
        "params": _params(call),
        "memory_bytes": memory,
        "threads": DUCKDB_THREADS,
        "result_max_bytes": box.result_max_bytes,
    }
    encoded = json_bytes(job)
    limit = box.result_max_bytes + RESPONSE_OVERHEAD_BYTES
    raw = await run_child("services.worker.duckdb_child", encoded, kind=call.kind, answer_max_bytes=limit)
    answer = orjson.loads(raw)
    if answer["ok"]:
        return [Result(**one) for one in answer["results"]]
    message, index = answer["message"], answer["statement_index"]
    if answer["code"] == "SETUP":
        message = f"DuckDB cannot be prepared; its extensions are downloaded once and need the network ({message})"
    data = {} if index is None else {"errors": [{"statement_index": index, "message": message}]}
    raise ToolError(call.kind, answer["code"], message, retryable=answer["retryable"], data=data)


async def run(call: ToolCall, box: ToolBox) -> dict[str, Any]:
    """Run the statements, each committing by itself, and return `sql_output.output` with the original's keys beside it.

    Raises:
        ToolError: no SQL, the file is in use elsewhere (`LOCKED`), or a statement failed (the name of DuckDB's error).
    """
    texts = await sql_of(call, box)
    secrets = await _secrets(call, box)
    setup = secrets + (_lake(call, box) if call.kind == "ducklake" else [])
    repository = box.settings.noetl_worker_duckdb_extensions if box.settings else ""
    if setup and repository:
        setup = [f"SET custom_extension_repository = {_literal(repository)}", *setup]
    path = _MEMORY if call.kind == "ducklake" else await asyncio.to_thread(_prepared_path, call, box)
    lock = _open_files.setdefault(path, asyncio.Lock()) if path != _MEMORY else asyncio.Lock()
    async with lock:  # DuckDB lets one process in
        results = await _answer(call, box, path, setup, texts)
    shown: dict[str, Any] = {}
    for number, result in enumerate(results[:SQL_STATEMENTS_SHOWN_MAX], 1):
        if result.has_rows:
            shown[f"command_{number}_rows"] = len(result.rows)
            shown[f"command_{number}_sample"] = [list(row.values()) for row in result.rows[:DUCKDB_SAMPLE_ROWS]]
    return {
        **output(results),
        **shown,
        "executed_commands": len(results),
        "task_id": str(uuid.uuid4()),
        "execution_id": str(call.execution),
        "secrets_created": sum(statement.startswith("CREATE") for statement in secrets),
        "database_path": path,
    }
