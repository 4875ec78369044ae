"""inspect(): what a checkpoint is, before it is downloaded and without loading it; and progress."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import isobath
from isobath.cli import app
from isobath.errors import CorruptCheckpoint, UnsupportedCheckpoint
from isobath.model.inspect import inspect
from isobath.model.inventory import tensors
from isobath.model.progress import GB, LoadProgress
from isobath.model.revision import parse_config
from isobath.model.shards import INDEX, SINGLE
from isobath.model.writer import write_checkpoint
from tests.support.checkpoints import random_checkpoint, random_tensors, small_config

FLASH = json.loads(
    (Path(isobath.__file__).parent / "models" / "flash_config.json").read_text(encoding="utf-8")
)
DSPARK = FLASH | {
    "compress_ratios": [*FLASH["compress_ratios"], 0, 0],
    "dspark_block_size": 5,
    "dspark_target_layer_ids": [40, 41, 42],
    "dspark_noise_token_id": 128799,
    "dspark_markov_rank": 256,
}
FLASH_TENSORS, FLASH_BYTES = 69_187, 159_609_485_896
DRAFT_TENSORS, DRAFT_BYTES = 1_575, 3_593_787_756


def write_index(folder: Path, config: dict[str, Any], names: list[str], total: int) -> None:
    weight_map = {
        name: f"model-{i % 46 + 1:05d}-of-00046.safetensors" for i, name in enumerate(names)
    }
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config))


def flash_names() -> list[str]:
    return list(tensors(parse_config(FLASH, where="flash")))


def test_flash_from_config_and_index_alone(tmp_path: Path) -> None:
    write_index(tmp_path, FLASH, flash_names(), FLASH_BYTES)
    found = inspect(tmp_path)
    assert (found.tensors, found.bytes) == (FLASH_TENSORS, FLASH_BYTES)
    assert found.revision == "DeepSeek-V4-Flash (2026-04-24 form)"
    assert (found.experts, found.dialect, found.draft) == ("MXFP4", "OCP", "mtp")
    assert (found.source, found.files, found.files_present) == ("index", 46, 0)
    assert not found.problems, "nothing downloaded yet is no fault of the checkpoint"
    assert found.context == 1_048_576 and found.parameters == 290_942_289_362
    classes = found.classes
    assert (classes["draft"].tensors, classes["draft"].bytes) == (DRAFT_TENSORS, DRAFT_BYTES)
    assert sum(c.tensors for c in classes.values()) == FLASH_TENSORS
    assert sum(c.bytes for c in classes.values()) == FLASH_BYTES
    plain = json.loads(json.dumps(found.as_dict()))
    assert (plain["tensors"], plain["bytes"]) == (FLASH_TENSORS, FLASH_BYTES)
    assert plain["classes"]["routed experts"]["bytes"] == 138_512_695_296


def test_the_command_says_which_gpus_flash_fits_before_it_is_downloaded(tmp_path: Path) -> None:
    """Weights of 145.3 GiB without the draft: one MI300X holds them with room for caches, one H100
    (80 GB) does not."""
    write_index(tmp_path, FLASH, flash_names(), FLASH_BYTES)
    shown = CliRunner().invoke(app, ["inspect", str(tmp_path), "--json"])
    facts = json.loads(shown.stdout)
    assert (shown.exit_code, facts["tensors"], facts["bytes"]) == (0, FLASH_TENSORS, FLASH_BYTES)
    assert facts["fits"]["MI300X"]["fits"] and not facts["fits"]["H100"]["fits"]
    assert facts["fits"]["MI300X"]["weight_bytes"] == FLASH_BYTES - DRAFT_BYTES
    text = CliRunner().invoke(app, ["inspect", str(tmp_path)]).stdout
    assert "159,609,485,896" in text and "MI300X: fits: " in text and "H100: does not fit" in text


def test_flash_0731_weighs_its_draft_by_the_rest_of_the_declared_size(tmp_path: Path) -> None:
    main = [n for n in flash_names() if not n.startswith("mtp.")]
    draft = [f"mtp.{i % 3}.tensor{i}" for i in range(4_705)]
    total = FLASH_BYTES - DRAFT_BYTES + 10_900_000_000
    write_index(tmp_path, DSPARK, main + draft, total)
    found = inspect(tmp_path)
    assert (found.tensors, found.bytes) == (72_317, total)
    assert found.revision == "DeepSeek-V4-Flash with DSpark draft (2026-07-31 form)"
    assert (found.draft, found.num_draft_layers) == ("dspark", 3)
    assert found.classes["draft"].bytes == 10_900_000_000
    assert not found.problems, "nothing downloaded yet is no fault of the checkpoint"


def test_an_index_that_differs_from_the_inventory_is_reported(tmp_path: Path) -> None:
    names = flash_names()
    write_index(tmp_path, FLASH, [n for n in names if n != "norm.weight"] + ["ghost"], FLASH_BYTES)
    problems = inspect(tmp_path).problems
    assert problems[0] == "1 tensors are missing from the index, the first is norm.weight"
    assert problems[1] == "1 tensors are unexpected in the index, the first is ghost"
    assert problems[2] == (
        f"the index declares {FLASH_BYTES:,} bytes, its tensors have {FLASH_BYTES - 8192:,}"
    )


@pytest.mark.parametrize("shard_bytes", [None, 200_000])
def test_a_whole_checkpoint_is_read_from_its_headers(
    shard_bytes: int | None, tmp_path: Path
) -> None:
    config = random_checkpoint(tmp_path, compress_ratios=[0, 4], shard_bytes=shard_bytes)
    specs = tensors(parse_config(config, where="x"))
    found = inspect(tmp_path)
    assert (found.source, found.problems, found.draft) == ("headers", (), "none")
    assert found.files == found.files_present == len(list(tmp_path.glob("*.safetensors")))
    assert (found.tensors, found.bytes) == (len(specs), sum(s.nbytes for s in specs.values()))
    assert found.revision == "DeepSeek-V4 of 2 layers, width 128, 8 experts"


def test_a_partial_download_counts_its_files(tmp_path: Path) -> None:
    random_checkpoint(tmp_path, compress_ratios=[0, 4], shard_bytes=200_000)
    whole = inspect(tmp_path)
    sorted(tmp_path.glob("*.safetensors"))[1].unlink()
    found = inspect(tmp_path)
    assert (found.source, found.tensors, found.bytes) == ("index", whole.tensors, whole.bytes)
    assert found.problems == (f"{whole.files - 1} of {whole.files} weight files are present",)


def test_what_would_not_load_is_a_problem_and_no_exception(tmp_path: Path) -> None:
    config = small_config(compress_ratios=[0])
    tensors = random_tensors(config, 0)
    tensors["norm.weight"] = torch.zeros(64, dtype=torch.bfloat16)
    write_checkpoint(tmp_path, config, tensors)
    [problem] = inspect(tmp_path).problems
    assert "norm.weight" in problem and "expected [128] BF16, found [64] BF16" in problem


def test_other_kinds_and_empty_folders_raise(tmp_path: Path) -> None:
    with pytest.raises(CorruptCheckpoint, match="there is no such file"):
        inspect(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(FLASH))
    with pytest.raises(CorruptCheckpoint, match=f"neither {SINGLE} nor {INDEX}"):
        inspect(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(FLASH | {"model_type": "deepseek_v41"}))
    with pytest.raises(UnsupportedCheckpoint, match=r"DeepSeek-V4\.1"):
        inspect(tmp_path)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def progress_text(stream: io.StringIO, total: int) -> str:
    with LoadProgress("loading m", stream) as progress:
        for done in range(0, 1001):
            progress(total * done // 1000, total)
    return stream.getvalue()


def test_a_log_file_gets_a_line_every_five_percent() -> None:
    lines = progress_text(io.StringIO(), 160 * GB).splitlines()
    assert [line.split(" (")[0] for line in lines] == [
        f"loading m: {p} %" for p in range(5, 101, 5)
    ]
    assert "(8.0 of 160.0 GB, " in lines[0] and lines[0].endswith(" GB/s)")


def test_a_small_model_is_silent_except_on_a_terminal() -> None:
    assert progress_text(io.StringIO(), GB - 1) == ""
    shown = progress_text(Terminal(), GB - 1)
    assert "loading m" in shown and "GB" in shown
