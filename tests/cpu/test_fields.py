"""What of a request's fields is ignored, and how loudly."""

from __future__ import annotations

import logging

import pytest

from isobath.server.fields import MISSED, GenerationFields


def test_an_ignored_field_that_would_change_the_answer_is_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        for name in MISSED:
            GenerationFields.model_validate({name: None, "max_gen_toks": 5})
        assert not caplog.records, "nothing is asked for by null"
        for _ in range(2):
            GenerationFields.model_validate({name: {"a": 1} for name in MISSED})
    told = [record.getMessage() for record in caplog.records]
    assert sorted(told) == sorted(
        f"{name} is not supported, and ignored: use {other}" for name, other in MISSED.items()
    )
