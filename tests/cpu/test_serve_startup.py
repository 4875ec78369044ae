"""What a server makes of the model it was given: folder, names, sampling defaults, revision."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isobath.config import ServerConfig
from isobath.engine.llm import BUNDLED
from isobath.errors import CheckpointError, ConfigError
from isobath.server.startup import _revision, folder_of, names_of, sampling_of

COMMIT = "60d8d70770c6776ff598c94bb586a859a38244f1"


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A Hugging Face cache that holds owner/model at COMMIT."""
    model = tmp_path / "models--owner--model"
    snapshot = model / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(COMMIT)
    return tmp_path


def test_a_name_on_the_hub_is_found_on_this_disk(hub: Path) -> None:
    config = ServerConfig(model="owner/model", download_dir=str(hub))
    folder = folder_of(config)
    assert folder.name == COMMIT and _revision(folder) == COMMIT[:12]
    assert names_of(config) == ("owner/model", "model")


def test_a_folder_is_itself_and_nothing_is_the_bundled_model(tmp_path: Path) -> None:
    assert folder_of(ServerConfig(model=str(tmp_path))) == tmp_path
    assert folder_of(ServerConfig()) == BUNDLED
    assert names_of(ServerConfig()) == ("isobath-tiny",)
    assert names_of(ServerConfig(served_model_name=("a", "b"))) == ("a", "b")
    assert names_of(ServerConfig(model=str(tmp_path))) == (str(tmp_path), tmp_path.name)


@pytest.mark.parametrize("model", ["/nowhere/at/all", "no such model"])
def test_what_is_neither_folder_nor_name_is_refused(model: str) -> None:
    with pytest.raises(CheckpointError, match="neither a folder nor a name"):
        folder_of(ServerConfig(model=model))


def test_a_revision_follows_from_what_describes_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    first = _revision(tmp_path)
    assert first == _revision(tmp_path) and len(first) == 12
    (tmp_path / "config.json").write_text("{ }")
    assert _revision(tmp_path) != first


def test_sampling_defaults_are_the_checkpoints_and_flags_go_before_them(tmp_path: Path) -> None:
    told = {"temperature": 0.7, "top_p": 0.95, "do_sample": True, "eos_token_id": 1}
    (tmp_path / "generation_config.json").write_text(json.dumps(told))
    assert sampling_of(ServerConfig(), tmp_path) == {"temperature": 0.7, "top_p": 0.95}
    override = ServerConfig(override_generation_config={"temperature": 0, "top_k": 40})
    expected = {"temperature": 0, "top_p": 0.95, "top_k": 40}
    assert sampling_of(override, tmp_path) == expected
    assert sampling_of(ServerConfig(generation_config="vllm"), tmp_path) == {}
    with pytest.raises(ConfigError, match="known: auto, vllm"):
        sampling_of(ServerConfig(generation_config="other"), tmp_path)
