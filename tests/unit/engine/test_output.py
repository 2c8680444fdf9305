"""The `output` of a step whose result is stored elsewhere."""

from __future__ import annotations

import pytest

from shared.engine.context import output_of
from shared.engine.references import LOST, NeedsDataError, loaded, result_ref
from shared.engine.state import StepRun
from shared.engine.templates import TemplateError, render_text

RUN = StepRun(step="a", epoch=1, status="completed", response=result_ref({"locator": "noetl://x"}, {"n": 2}))


def test_scalars_are_there_and_the_rest_is_asked_for() -> None:
    names = {"output": output_of(RUN)}
    assert render_text("{{ output.n }}", names) == 2
    with pytest.raises(NeedsDataError):
        render_text("{{ output.rows }}", names)
    with loaded({"noetl://x": {"n": 2, "rows": [1, 2]}}):
        assert render_text("{{ output.rows | length }}", names) == 2
        assert render_text("{{ output.result.rows[1] }}", names) == 2
        assert render_text("{{ output.nothing }}", names) is None


def test_a_result_that_is_gone_says_so() -> None:
    with loaded({"noetl://x": LOST}), pytest.raises(TemplateError, match="noetl://x"):
        render_text("{{ output.rows }}", {"output": output_of(RUN)})
