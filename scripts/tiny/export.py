"""Write isobath-tiny in the published DeepSeek-V4 checkpoint format.

Reads the release file of train.py (the values the last forward saw, under transformers' names) and
writes config.json, model.safetensors and generation_config.json beside the tokenizer. Quantising
values that already went through their format must change nothing: every tensor is read back from
the file, decoded and compared bit for bit before the script reports success.

    python scripts/tiny/export.py --release /tmp/train/release.pt --out isobath/models/isobath_tiny
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from quant import published_name, stored_as
from shape import CONFIG

from isobath.model.writer import Storable, write_checkpoint
from isobath.numerics import fp8, mxfp4
from isobath.numerics.dialect import OCP

GENERATION = {"_from_model_config": True, "bos_token_id": 0, "do_sample": True, "eos_token_id": 1,
              "temperature": 1.0, "top_p": 1.0, "transformers_version": "4.57.1"}  # fmt: skip


def published(release: dict[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
    """Published name -> (stored format, values), stacked experts taken apart."""
    out: dict[str, tuple[str, Tensor]] = {}
    for name, value in release.items():
        kind, new = stored_as(name), published_name(name)
        if kind != "mxfp4":
            out[new] = kind, value
            continue
        parts = (
            {"w2": value}
            if new.endswith("down_proj")
            else dict(zip(("w1", "w3"), value.chunk(2, 1), strict=True))
        )
        stem = new.rsplit(".", 1)[0]
        for part, stacked in parts.items():
            for expert, matrix in enumerate(stacked):
                out[f"{stem}.{expert}.{part}.weight"] = kind, matrix
    return out


def encode(kind: str, value: Tensor) -> Storable:
    if kind == "mxfp4":
        return mxfp4.quantize(value.float())
    if kind == "fp8":
        return fp8.quantize(value.float(), OCP, fp8.WEIGHT_BLOCK)
    return value.to({"bf16": torch.bfloat16, "f32": torch.float32, "i64": torch.int64}[kind])


def decode_file(folder: Path) -> dict[str, Tensor]:
    """Every tensor of the exported file under its published name, decoded (scales folded in)."""
    out: dict[str, Tensor] = {}
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = set(file.keys())
        for name in sorted(names):
            scale_name = name.removesuffix("weight") + "scale"
            if name.endswith(".scale"):
                continue
            data = file.get_tensor(name)
            if scale_name not in names or not name.endswith(".weight"):
                out[name] = data
                continue
            scale = file.get_tensor(scale_name).view(torch.uint8)
            if data.dtype == torch.int8:
                out[name] = mxfp4.dequantize(mxfp4.Mxfp4Tensor(data.view(torch.uint8), scale))
            else:
                out[name] = fp8.dequantize(fp8.Fp8Tensor(data, scale, OCP, fp8.WEIGHT_BLOCK))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description="Write isobath-tiny in the published format.")
    parser.add_argument("--release", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    tensors = published(torch.load(args.release, map_location="cpu"))
    write_checkpoint(args.out, CONFIG, {n: encode(*t) for n, t in tensors.items()})
    (args.out / "generation_config.json").write_text(json.dumps(GENERATION, indent=2) + "\n")
    decoded = decode_file(args.out)
    assert decoded.keys() == tensors.keys(), decoded.keys() ^ tensors.keys()
    for name, (_, value) in tensors.items():
        assert torch.equal(decoded[name].double(), value.double()), f"{name} changed in its file"
    size = sum(f.stat().st_size for f in args.out.iterdir())
    print(f"{len(tensors)} weights, decoded bit for bit as trained; folder {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
