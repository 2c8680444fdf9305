"""The artifact and result_fetch tools: files and stored results."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from services.worker.tools import ToolError
from tests.integration.worker.conftest import EXECUTION, RESULT_MAX_BYTES, Call, FakeApi

REF = f"noetl://execution/{EXECUTION}/result/start/1"


async def refused(call: Call, code: str, kind: str = "artifact", **config: Any) -> ToolError:
    with pytest.raises(ToolError) as failure:
        await call(kind, **config)
    assert failure.value.code == code, failure.value
    return failure.value


@pytest.mark.parametrize(
    "config",
    [
        {"result_ref": REF},
        {"input": {"result_ref": REF}},
        {"args": {"result_ref": {"_ref": REF, "store": "db"}}},
        {"given": {"result_ref": REF}},
        {"uri": REF},
        {"kind": "result_fetch", "ref": REF},
        {"kind": "result_fetch", "reference": {"type": "result_ref", "locator": REF}},
    ],
)
async def test_a_stored_result(call: Call, api: FakeApi, config: dict[str, Any]) -> None:
    api.results[REF] = {"items": [1, 2], "count": 2}
    kind = config.get("kind", "artifact")
    output = await call(kind, **{key: value for key, value in config.items() if key != "kind"})
    assert (output["data"] if kind == "artifact" else output) == {"items": [1, 2], "count": 2}


async def test_data_that_is_no_object_or_calls_itself_an_error_lies_below_data(call: Call, api: FakeApi) -> None:
    for data in ([1, 2], "text", {"status": "error", "error": "old"}):
        api.results[REF] = data
        assert await call("result_fetch", ref=REF) == {"status": "success", "data": data}


async def test_a_reference_that_is_gone_none_or_too_large(call: Call, api: FakeApi) -> None:
    await refused(call, "REFERENCE_NOT_AVAILABLE", result_ref=REF)
    await refused(call, "BAD_CONFIG", "result_fetch", ref="")
    await refused(call, "BAD_CONFIG", "result_fetch", ref="not a reference")
    api.results[REF] = ["x" * RESULT_MAX_BYTES]
    await refused(call, "RESULT_TOO_LARGE", result_ref=REF)


@pytest.mark.parametrize(
    ("data", "compress"), [({"a": [1]}, False), ({"a": [1]}, True), ("some text", "true"), ([1], False)]
)
async def test_a_file_that_is_put_comes_back(call: Call, tmp_path: Path, data: Any, compress: Any) -> None:
    stored = await call("artifact", action="put", uri="sub/x.json", data=data, compress=compress)
    assert stored["uri"] == f"file://{tmp_path}/sub/x.json"
    assert len(stored["sha256"]) == 64
    for uri in ("sub/x.json", stored["uri"], f"artifact://localfs{tmp_path}/sub/x.json", "artifact://sub/x.json"):
        output = await call("artifact", action="get", uri=uri)
        assert (output["status"], output["data"], output["compressed"]) == ("success", data, stored["compressed"])


async def test_a_packed_file_is_found_by_the_name_it_was_given(call: Call, tmp_path: Path) -> None:
    (tmp_path / "y.json.gz").write_bytes(gzip.compress(b"[1]"))
    assert (await call("artifact", uri="y.json"))["data"] == [1]


async def test_without_an_address_it_goes_to_the_result_store(call: Call, api: FakeApi) -> None:
    api.answers[f"PUT /api/result/{EXECUTION}"] = [(200, {"ref": REF, "store": "db", "bytes": 5, "sha256": "x"})]
    assert (await call("artifact", action="put", data={"a": 1}))["result_ref"] == REF
    assert api.asked[-1][2]["data"] == {"a": 1}


async def test_files_that_cannot_be_had(call: Call, tmp_path: Path) -> None:
    await refused(call, "NOT_FOUND", uri="none.json")
    await refused(call, "FILE", uri=str(tmp_path))
    (tmp_path / "large").write_bytes(b"x" * (RESULT_MAX_BYTES + 1))
    assert "over" in (await refused(call, "FILE", uri="large")).message
    (tmp_path / "bomb").write_bytes(gzip.compress(b"x" * (RESULT_MAX_BYTES * 20)))
    assert "unpacks" in (await refused(call, "FILE", uri="bomb")).message
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    assert (await call("artifact", uri="binary"))["data"] == "/wA="
    await refused(call, "NOT_AVAILABLE", uri="gs://bucket/x")
    await refused(call, "NOT_AVAILABLE", action="put", data=1, uri="s3://bucket/x")
    await refused(call, "BAD_CONFIG", action="put", uri="x")
    await refused(call, "BAD_CONFIG", action="burn")
    await refused(call, "BAD_CONFIG")
