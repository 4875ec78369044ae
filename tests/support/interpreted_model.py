"""A decode step of the bundled shape with every op's Triton kernel, in Triton's interpreter, and
beside each call the op's reference: a module to run in its own process.

    python -m tests.support.interpreted_model DIALECT CONTEXT LAYERS

prints one JSON object: the ops that were called, how often, and every call that disagreed. What
lies between the ops (strides of views, static metadata, widths of page tables) is the model's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
SEQUENCES = 3


def decoded(dialect: str, context: int, layers: int) -> dict[str, Any]:
    """Run main() in a process in which the interpreter is chosen; what it printed."""
    command = [sys.executable, "-m", __name__, dialect, str(context), str(layers)]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(dialect: str, context: int, layers: int) -> None:
    import torch

    from isobath.bench.decode_layer import decode_step
    from isobath.doctor.shadow import Shadow
    from isobath.engine.llm import BUNDLED
    from isobath.model.dummy import Dummy, dummy_model
    from isobath.model.revision import read_config
    from isobath.model.v4 import forward
    from isobath.numerics.dialect import DIALECTS
    from isobath.ops.table import bind
    from tests.support.interpreter import repair

    repair()
    shadow, device = Shadow(), torch.device("cpu")
    table = shadow.table(bind("triton"))
    config, weights = dummy_model(
        read_config(BUNDLED),
        dialect=DIALECTS[dialect],
        device=device,
        ops=table,
        part=Dummy(layers),
    )
    with torch.no_grad():
        near = (context - 64, context + 64)
        pool, compute = decode_step(config, weights, table, SEQUENCES, near, device)
        logits = forward(config, weights, table, pool, compute())
    wrong = [call for call in shadow.calls if call[3]]
    calls = Counter(op for _, op, _, _ in shadow.calls)
    finite = bool(logits.isfinite().all())
    print(json.dumps({"calls": calls, "wrong": wrong, "finite": finite}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
