"""The Triton GEMMs in Triton's interpreter: right on every small case, and the same in every tile.

Batch invariance is not asked here: the interpreter multiplies with NumPy, whose order of summation
depends on shapes. Sums that are exact in float32 are compared bit for bit instead; the rest is for
a GPU to show.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support.interpreter import BY_DAY_AND_NIGHT, ROOT, judged, repair

OPS = ("fp8_linear", "linear", "attention_in", "grouped_linear", "grouped_project", "shared_expert")


@pytest.mark.parametrize("dialect", BY_DAY_AND_NIGHT)
@pytest.mark.parametrize("op", OPS)
def test_triton_agrees_with_the_reference_on_every_small_case(op: str, dialect: str) -> None:
    rows = list(judged(op, (), dialect))
    assert len(rows) >= 8
    for row in rows:
        assert row["agrees"], (row["case"], row["dialect"], row["note"])
        assert row["deterministic"], row


def test_rows_do_not_depend_on_their_number_or_on_the_tile() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.cpu.test_triton_gemm"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 40 + 8 + 5 + 6, found
    assert all(found.values()), found


def exact_in_every_tile() -> dict[str, bool]:
    """Per tile and number of tokens: whether fp8_linear gives the exact product, bit for bit.

    Codes are integers up to 2 and scales at most four powers apart, so that sums over K = 384 are
    multiples of 1/16 up to 1536: exact in float32 in any order; they are rounded to bf16 once.
    """
    repair()
    import torch

    from isobath.numerics.dialect import OCP
    from isobath.numerics.fp8 import ACTIVATION_BLOCK, WEIGHT_BLOCK, Fp8Tensor
    from isobath.ops.fp8_linear.reference import fp8_linear
    from isobath.ops.fp8_linear.triton_kernel import launch
    from isobath.ops.tl_gemm import Tile
    from isobath.ops.tl_tma import Fetch
    from isobath.ops.tl_tma import launch as fetched

    generator = torch.Generator().manual_seed(5)

    def matrix(rows: int, width: int, block: tuple[int, int]) -> Fp8Tensor:
        data = torch.randint(-2, 3, (rows, width), generator=generator).to(OCP.dtype)
        shape = (-(-rows // block[0]), width // block[1])
        scale = torch.randint(125, 128, shape, generator=generator).to(torch.uint8)
        return Fp8Tensor(data, scale, OCP, block)

    weight, whole = matrix(256, 384, WEIGHT_BLOCK), matrix(145, 384, ACTIVATION_BLOCK)
    want = fp8_linear(whole, weight)
    tiles = {
        "left": Tile(16, 32, 4, 1),
        "swapped": Tile(16, 64, 4, 1, swap=True),
        "pair": Tile(32, 128, 4, 1, pair=True),
        "large": Tile(32, 128, 4, 1),
    }
    found = {}
    for name, tile in tiles.items():
        for tokens in (1, 3, 16, 33, 145):  # 145: more tiles than one group of tile_of
            x = Fp8Tensor(whole.data[:tokens], whole.scale[:tokens], OCP, ACTIVATION_BLOCK)
            got = launch(x, weight, tile, tile.options("cpu"))
            found[f"{name} {tokens}"] = torch.equal(got, want[:tokens])
            got = fetched(x, weight, Fetch(tile.tokens, tile.rows, 4, 1))
            found[f"{name} {tokens} fetched"] = torch.equal(got, want[:tokens])
    return found | exact_in_every_lane() | quantised_by_the_last() | together()


def exact_in_every_lane() -> dict[str, bool]:
    """As exact_in_every_tile() for two numbers of slices of K and tiles that sum several at once:
    K = 8192 has two rounds of four. Sums are multiples of 1/16 up to 32768: exact in float32."""
    import torch

    from isobath.numerics.dialect import OCP
    from isobath.numerics.fp8 import ACTIVATION_BLOCK, WEIGHT_BLOCK, Fp8Tensor
    from isobath.ops.fp8_linear.reference import fp8_linear
    from isobath.ops.fp8_linear.triton_kernel import launch
    from isobath.ops.linear.triton_kernel import launch as launch_plain
    from isobath.ops.tl_gemm import Tile

    generator = torch.Generator().manual_seed(6)
    found = {}
    for width in (2048, 8192):
        codes = torch.randint(-2, 3, (72 + 3, width), generator=generator).to(OCP.dtype)
        scale = torch.randint(125, 128, (1 + 3, width // 128), generator=generator).to(torch.uint8)
        weight = Fp8Tensor(codes[:72], scale[:1], OCP, WEIGHT_BLOCK)
        x = Fp8Tensor(codes[72:], scale[1:], OCP, ACTIVATION_BLOCK)
        plain, y = codes[:72].to(torch.bfloat16), codes[72:].to(torch.bfloat16)
        want, want_plain = fp8_linear(x, weight), y.float() @ plain.float().T
        for lanes in (2, 4):
            tile = Tile(16, 64 // lanes, 4, 1, swap=True, lanes=lanes)
            got = launch(x, weight, tile, {})
            found[f"fp8 K={width} {lanes} lanes"] = torch.equal(got, want)
            got = launch_plain(y, plain, tile, {})
            found[f"plain K={width} {lanes} lanes"] = torch.equal(got, want_plain)
    return found


def quantised_by_the_last() -> dict[str, bool]:
    """Whether programs that hold parts of a quantisation group give what one that holds it gives,
    and leave their counters at zero. Operands as above: sums are exact."""
    import torch

    from isobath.numerics.dialect import OCP
    from isobath.numerics.fp8 import ACTIVATION_BLOCK, WEIGHT_BLOCK, Fp8Tensor
    from isobath.ops.grouped_project import triton_bf16_kernel
    from isobath.ops.grouped_project import triton_kernel as project
    from isobath.ops.grouped_project.widened import widen
    from isobath.ops.shared_expert import triton_kernel as shared
    from isobath.ops.tl_gemm import Tile
    from isobath.ops.tl_gemm_few import counters

    generator = torch.Generator().manual_seed(7)

    def same(a: Fp8Tensor, b: Fp8Tensor) -> bool:
        codes = torch.equal(a.data.view(torch.uint8), b.data.view(torch.uint8))
        return codes and torch.equal(a.scale, b.scale)

    def matrix(*shape: int, scale: int, block: tuple[int, int]) -> Fp8Tensor:
        data = torch.randint(-2, 3, shape, generator=generator).to(OCP.dtype)
        blocks = (*shape[:-2], -(-shape[-2] // block[0]), shape[-1] // 128)
        return Fp8Tensor(data, torch.full(blocks, scale, dtype=torch.uint8), OCP, block)

    part, whole = Tile(16, 32, 4, 1, swap=True, lanes=2), Tile(16, 128, 4, 1, swap=True)
    x = torch.randint(-2, 3, (17, 2, 2048), generator=generator).to(torch.bfloat16)
    weight = matrix(2, 128, 2048, scale=127, block=WEIGHT_BLOCK)
    parts, one = (project.launch(x, weight, OCP, tile, {}) for tile in (part, whole))
    cached = triton_bf16_kernel.grouped_project(x, widen(weight), dialect=OCP)
    y = matrix(17, 2048, scale=122, block=ACTIVATION_BLOCK)
    w13 = matrix(256, 2048, scale=127, block=WEIGHT_BLOCK)
    few, _ = shared.launch_narrow(y, w13, 10.0, part, {}, quantize=True)
    many = shared.launch_wide(y, w13, 10.0, Tile(16, 128, 4, 1, pair=True), {})
    return {
        "projected": same(parts, one),
        "projected with bf16 weights": same(cached, one),
        "hidden": same(few, many),
        "projection's counters": not counters(x.device, "grouped_project").any(),
        "hidden counters": not counters(x.device, "shared_expert").any(),
    }


def together() -> dict[str, bool]:
    """Whether attention_in's two products have the bits of the ops they belong to. Operands as
    above: sums are exact."""
    import torch

    from isobath.numerics.dialect import OCP
    from isobath.numerics.fp8 import ACTIVATION_BLOCK, WEIGHT_BLOCK, Fp8Tensor
    from isobath.ops.attention_in.triton_kernel import attention_in
    from isobath.ops.fp8_linear.triton_kernel import fp8_linear
    from isobath.ops.linear.triton_kernel import linear

    generator, found = torch.Generator().manual_seed(8), {}
    for tokens in (1, 3, 37):
        codes = torch.randint(-2, 3, (200 + tokens, 256), generator=generator).to(OCP.dtype)
        scale = torch.randint(125, 128, (2 + tokens, 2), generator=generator).to(torch.uint8)
        weight = Fp8Tensor(codes[:200], scale[:2], OCP, WEIGHT_BLOCK)
        x = Fp8Tensor(codes[200:], scale[2:], OCP, ACTIVATION_BLOCK)
        plain, y = codes[:90].to(torch.bfloat16), codes[200:].to(torch.bfloat16)
        out, taken = attention_in(x, y, weight, plain)
        found[f"together T={tokens} out"] = torch.equal(out, fp8_linear(x, weight))
        found[f"together T={tokens} taken"] = torch.equal(taken, linear(y, plain))
    return found


if __name__ == "__main__":
    print(json.dumps(exact_in_every_tile()))
