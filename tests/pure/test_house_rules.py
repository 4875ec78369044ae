"""The tree keeps the house rules, and every rule sees a violation planted in a tree of its own."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from house_rules import RULES, RUNGS, long_files

ROOT = Path(__file__).parents[2]
DOC = '"""A module."""\n'

VIOLATIONS = [
    ("import_ladder", "isobath/numerics/fp8.py", "from isobath.ops import table\n"),
    ("import_ladder", "isobath/model/moe.py", "from isobath.parallel import groups\n"),
    ("import_ladder", "isobath/ops/table.py", "def f():\n    import isobath.engine.llm\n"),
    ("import_ladder", "isobath/cache/view.py", "from isobath import LLM\n"),
    ("import_ladder", "isobath/cache/view.py", "from isobath import model\n"),
    ("import_ladder", "isobath/emulator/run.py", "from isobath.ops import table\n"),
    ("import_ladder", "isobath/ops/table.py", "from .contract import Op\n"),
    ("import_ladder", "isobath/novelty.py", ""),
    ("dialect_numbers", "isobath/ops/x.py", "LIMIT = 448.0\n"),
    ("dialect_numbers", "isobath/cache/view.py", "ROW = 584\n"),
    ("dialect_numbers", "isobath/ops/x.py", "def f(y, top=-224):\n    return y\n"),
    ("sizes", "isobath/plan.py", "x = 1\n" * 500),
    ("sizes", "scripts/make.py", "def f():\n" + "    x = 1\n" * 60),
    ("sizes", "isobath/ops/x/triton_kernel.py", "def f():\n" + "    x = 1\n" * 150),
    ("no_utils", "isobath/engine/utils.py", ""),
    ("no_utils", "scripts/helpers/make.py", ""),
    ("environment", "isobath/target.py", "import os\nx = os.environ['HOME']\n"),
    ("environment", "isobath/target.py", "from os import getenv\nx = getenv('HOME')\n"),
    ("outside_authorities", "isobath/model/v4.py", "import transformers\n"),
    ("outside_authorities", "isobath/numerics/fp8.py", "from ml_dtypes import bfloat16\n"),
    ("triton_imports", "isobath/ops/measure.py", "import triton.language as tl\n"),
    ("unfinished", "isobath/ops/x.py", "x = 1  # TO" + "DO: later\n"),
    ("unfinished", "isobath/ops/x.py", "assert False, 'unreachable'\n"),
    ("unfinished", "isobath/ops/x.py", "raise NotImplemented" + "Error\n"),
    ("unfinished", "tests/cpu/test_x.py", "import pytest\npytest.sk" + "ip('later')\n"),
    ("unfinished", "tests/cpu/test_x.py", "import pytest\nm = pytest.mark.x" + "fail\n"),
]

ALLOWED = [
    (
        "import_ladder",
        "isobath/ops/table.py",
        "import torch\nfrom isobath.ops.contract import Op\n",
    ),
    ("import_ladder", "isobath/plan.py", "from isobath.model.inventory import tensors\n"),
    ("import_ladder", "isobath/cli.py", "from isobath import LLM\n"),
    ("import_ladder", "isobath/__init__.py", "from isobath.engine.llm import LLM\n"),
    ("dialect_numbers", "isobath/numerics/dialect.py", "MAX = 448.0\n"),
    ("dialect_numbers", "isobath/cache/layout.py", "ROW = 584\n"),
    ("dialect_numbers", "isobath/ops/x.py", "X = '448'  # 448\nY = 448000\n"),
    ("sizes", "isobath/ops/x/triton_kernel.py", "def f():\n" + "    x = 1\n" * 149),
    ("environment", "isobath/config.py", "import os\nx = os.environ['HOME']\n"),
    ("triton_imports", "isobath/ops/x/triton_kernel.py", "import triton\n"),
    ("triton_imports", "isobath/ops/tl_x.py", "import triton.language as tl\n"),
    ("outside_authorities", "tests/cpu/test_x.py", "import transformers\n"),
    ("unfinished", "isobath/ops/x.py", "assert x, 'ours'\n"),
]


def plant(root: Path, path: str, source: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(DOC + source, encoding="utf-8")


@pytest.mark.parametrize("rule", RULES)
def test_tree_keeps_rule(rule: str) -> None:
    assert RULES[rule](ROOT) == []


def test_files_beyond_300_lines_are_named() -> None:
    for line in long_files(ROOT):
        warnings.warn(f"outgrown: {line}", stacklevel=1)
    assert all(int(line.split()[-2]) <= 500 for line in long_files(ROOT))


@pytest.mark.parametrize(("rule", "path", "source"), VIOLATIONS)
def test_planted_violation_is_caught(rule: str, path: str, source: str, tmp_path: Path) -> None:
    plant(tmp_path, path, source)
    found = RULES[rule](tmp_path)
    assert len(found) == 1, found
    assert found[0].startswith(path)


@pytest.mark.parametrize(("rule", "path", "source"), ALLOWED)
def test_permitted_source_is_not_caught(rule: str, path: str, source: str, tmp_path: Path) -> None:
    plant(tmp_path, path, source)
    assert RULES[rule](tmp_path) == []


def test_missing_docstring_is_caught(tmp_path: Path) -> None:
    plant(tmp_path, "isobath/plan.py", "")
    assert RULES["docstrings"](tmp_path) == []
    (tmp_path / "isobath/plan.py").write_text("x = 1\n")
    assert RULES["docstrings"](tmp_path) == ["isobath/plan.py: no docstring"]


def test_file_beyond_300_lines_is_long(tmp_path: Path) -> None:
    plant(tmp_path, "isobath/plan.py", "x = 1\n" * 300)
    assert long_files(tmp_path) == ["isobath/plan.py: 301 lines"]
    assert RULES["sizes"](tmp_path) == []


@pytest.mark.parametrize("upper", RUNGS)
@pytest.mark.parametrize("lower", RUNGS)
def test_of_two_parts_at_most_one_imports_the_other(upper: str, lower: str, tmp_path: Path) -> None:
    plant(tmp_path, f"isobath/{upper}.py", f"import isobath.{lower}\n")
    plant(tmp_path, f"isobath/{lower}.py", f"import isobath.{upper}\n")
    found = RULES["import_ladder"](tmp_path)
    assert bool(found) == (upper != lower)


class TestArchitectureMap:
    """The map against a tree of two parts."""

    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        plant(tmp_path, "isobath/ops/x/reference.py", "")
        plant(tmp_path, "isobath/ops/__init__.py", "")
        plant(tmp_path, "isobath/plan.py", "")
        return tmp_path

    def judge(self, tree: Path, text: str) -> list[str]:
        (tree / "ARCHITECTURE.md").write_text(text)
        return RULES["architecture_map"](tree)

    def test_true_map_passes(self, tree: Path) -> None:
        assert self.judge(tree, "`plan.py`, `ops/` and `isobath/ops/<op>/reference.py`\n") == []

    def test_missing_map_is_caught(self, tree: Path) -> None:
        assert RULES["architecture_map"](tree) == ["ARCHITECTURE.md: missing"]

    def test_path_that_does_not_exist_is_caught(self, tree: Path) -> None:
        found = self.judge(tree, "`plan.py`, `ops/`, `ops/<op>/cases.py`\n")
        assert found == ["ARCHITECTURE.md: ops/<op>/cases.py does not exist"]

    def test_part_off_the_map_is_caught(self, tree: Path) -> None:
        assert self.judge(tree, "`ops/`\n") == [
            "ARCHITECTURE.md: isobath/plan.py is not on the map"
        ]

    def test_long_map_is_caught(self, tree: Path) -> None:
        text = "`plan.py`, `ops/`\n" + "\n" * 150
        assert self.judge(tree, text) == ["ARCHITECTURE.md: 151 lines > 150"]
