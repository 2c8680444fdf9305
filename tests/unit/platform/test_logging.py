"""Log lines say who called."""

from __future__ import annotations

import json
import logging

from shared.platform.logging import LOG_FIELDS, JsonFormatter, TextFormatter


def record(**extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"msg": "done", "levelname": "INFO", "name": "x"})
    made.__dict__.update(extra)
    return made


def test_the_caller_of_a_request_is_in_each_of_its_lines() -> None:
    token = LOG_FIELDS.set({"actor": "token:ci"})
    try:
        assert json.loads(JsonFormatter("api").format(record(execution_id=5))) | {"time": ""} == {
            "time": "",
            "level": "INFO",
            "service": "api",
            "logger": "x",
            "message": "done",
            "actor": "token:ci",
            "execution_id": 5,
        }
        assert "actor=token:ci" in TextFormatter().format(record())
    finally:
        LOG_FIELDS.reset(token)
    assert "actor" not in json.loads(JsonFormatter("api").format(record()))
