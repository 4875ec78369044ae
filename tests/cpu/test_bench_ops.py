"""The ops benchmark: its last line is one JSON object, its rows are verdicts for `choose`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isobath.bench.ops import main, run
from isobath.errors import ConfigError
from isobath.ops.table import contract
from isobath.ops.verdicts import choose, read


def test_last_line_is_one_json_object_and_rows_are_appended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows_path = tmp_path / "rows.jsonl"
    main(op="embed", rows_path=rows_path, device="cpu")
    counts = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = read(rows_path)
    assert counts["rows"] == len(rows) == 2 * len(contract("embed").cases())
    assert counts["agree"] == len(rows) and counts["wrong"] == 0
    assert counts["graph_safe"] == counts["not_graph_safe"] == 0, "not measurable on a CPU"
    assert counts["chosen"] == {"embed": "torch"} and counts["refused"] == {}
    assert {row.dialect for row in rows} == {"ocp", "fnuz"}
    assert all(row.us is not None and row.us > 0 for row in rows)
    assert choose(rows, contract("embed")).backend == "torch"
    main(op="embed", dialect="ocp", rows_path=rows_path, device="cpu")
    assert len(read(rows_path)) == len(rows) * 3 // 2


def test_backend_that_belongs_on_a_gpu_is_not_measured_on_a_cpu() -> None:
    assert run("embed", "triton", device="cpu")["rows"] == 0


def test_unknown_op_and_unknown_dialect_are_errors_that_list_the_known() -> None:
    with pytest.raises(ConfigError, match="hyper_mix"):
        run("hypermix", device="cpu")
    with pytest.raises(ConfigError, match="fnuz"):
        run("embed", dialect="e4m3", device="cpu")
