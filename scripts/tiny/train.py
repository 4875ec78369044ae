"""Train isobath-tiny.

Owns the schedule: warm-up, constant rate, linear decay to zero over the last part (WSD); every CSA
entry attended until `--sparse-from`, then the indexer's top-k; weights through their stored formats
from `--quantise-from`. The router's selection bias moves by a fixed step against each expert's load
(no auxiliary loss). Everything a resumed run needs is in one state file.

    python scripts/tiny/train.py --corpus .train --work /tmp/train --tokens 1e9
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data import Rows, encode, held_out_rows, text_bytes
from fastpath import FastForward
from optim import Optimiser
from quant import stored_as
from shape import build

LENGTH = 2048
BIAS_STEP = 1e-3


def rate(step: int, done: float, warmup: int, decay: float) -> float:
    """Learning-rate factor: linear up, flat, linear to zero over the last `decay` of the run."""
    return max(0.0, min((step + 1) / warmup, 1.0, (1 - done) / decay))


def evaluate(
    fast: FastForward, held: tuple[torch.Tensor, torch.Tensor], size: int, batch: int, sparse: bool
) -> float:
    """Held-out bits per byte over 2048-token rows. Gradients stay on: the compiled graphs are then
    training's own.
    """
    nats = torch.zeros((), device=held[0].device, dtype=torch.float64)
    rows = held[0].shape[0]
    for start in range(0, rows, batch):
        ids, targets = held[0][start : start + batch], held[1][start : start + batch]
        short = batch - ids.shape[0]  # one shape, so one compilation
        ids = torch.nn.functional.pad(ids, (0, 0, 0, short))
        targets = torch.nn.functional.pad(targets, (0, 0, 0, short), value=-100)
        nats += fast.loss(ids, targets, sparse)[0].detach().double().sum()
    return float(nats) / math.log(2) / size


@torch.no_grad()
def balance(model: torch.nn.Module, loads: list[torch.Tensor], step: float) -> torch.Tensor:
    """Move selection biases against the load; returns the worst load over the mean."""
    worst = torch.zeros((), device=loads[0].device)
    for layer, load in zip(model.model.layers, loads, strict=True):
        if not layer.mlp.is_hash:
            layer.mlp.gate.e_score_correction_bias += step * (load.mean() - load).sign()
            worst = torch.maximum(worst, load.max() / load.mean())
    return worst


def compile_all(fast: FastForward, batch: int, length: int, warm_up: bool) -> None:
    """Run every graph once on noise, so that compilation is over before the first step."""
    ids = torch.randint(fast.model.vocab_size, (batch, length), device=fast.model.device)
    for sparse in (False, True) if warm_up else (True,):
        nats, index, _ = fast.loss(ids, ids, sparse)
        (nats.mean() + index).backward()
    fast.model.zero_grad(set_to_none=True)


def save(
    path: Path, model: torch.nn.Module, optimiser: Optimiser, step: int, elapsed_s: float
) -> None:
    """Write the state file and the release file (the values to export); old ones stay until new
    ones are whole.
    """
    buffers = {n: b for n, b in model.named_buffers() if "e_score" in n or "tid2eid" in n}
    state = {
        "optimiser": optimiser.state(),
        "buffers": buffers,
        "step": step,
        "elapsed_s": elapsed_s,
    }
    torch.save(state, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)
    optimiser.publish(quantised=True)
    release: dict[str, torch.Tensor] = {n: b.cpu() for n, b in buffers.items()}
    for (
        name,
        p,
    ) in optimiser.params.items():  # exact: every stored value but the float32 ones fits bf16
        release[name] = (
            p.detach().cpu().to(torch.float32 if stored_as(name) == "f32" else torch.bfloat16)
        )
    torch.save(release, path.with_name("release.new"))
    os.replace(path.with_name("release.new"), path.with_name("release.pt"))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train isobath-tiny.")
    parser.add_argument(
        "--corpus", type=Path, required=True, help="folder with train.txt.xz, heldout.txt.xz"
    )
    parser.add_argument(
        "--tokenizer", type=Path, default=Path("isobath/models/isobath_tiny/tokenizer.json")
    )
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for the state file and the log"
    )
    parser.add_argument(
        "--tokens", type=float, required=True, help="tokens to train on, all passes together"
    )
    parser.add_argument("--batch", type=int, default=64, help="rows of 2048 tokens in a step")
    parser.add_argument("--micro", type=int, default=64, help="rows in one forward")
    parser.add_argument("--adam-lr", type=float, default=3e-3)
    parser.add_argument("--muon-lr", type=float, default=4e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--decay", type=float, default=0.4)
    parser.add_argument(
        "--sparse-from", type=float, default=0.2, help="share of the run before top-k selection"
    )
    parser.add_argument("--quantise-from", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report-every", type=int, default=50)
    parser.add_argument("--eval-every", type=int, default=500)
    parser.add_argument(
        "--budget-s",
        type=float,
        default=math.inf,
        help="finish the schedule within this time of one process",
    )
    parser.add_argument(
        "--stop-at-step", type=int, default=1 << 60, help="save and leave, to be resumed"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue from the state file in --work"
    )
    parser.add_argument(
        "--warm", type=Path, help="start from a release file, moments at zero, at --warm-step"
    )
    parser.add_argument("--warm-step", type=int, default=0)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--length", type=int, default=LENGTH)
    return parser.parse_args()


def restore(
    args: argparse.Namespace, model: torch.nn.Module, optimiser: Optimiser
) -> tuple[int, float]:
    """Load what --resume or --warm names. Returns the step and the seconds already spent."""
    device = optimiser.masters["lm_head.weight"].device
    if args.resume:
        state = torch.load(args.work / "state.pt", map_location=device, weights_only=False)
        optimiser.load(state["optimiser"])
        for name, value in state["buffers"].items():
            model.get_buffer(name).copy_(value)
        return state["step"], state["elapsed_s"]
    if args.warm:
        for name, value in torch.load(args.warm, map_location=device).items():
            known = name in optimiser.masters
            (optimiser.masters[name] if known else model.get_buffer(name)).copy_(value)
    return args.warm_step, 0.0


def load_data(args: argparse.Namespace, fast: FastForward) -> tuple[torch.Tensor, torch.Tensor]:
    """Training and held-out token streams on the device; kernels compile while text is encoded."""
    names = ("train", "heldout")
    files = [(args.corpus / f"{n}.txt.xz", args.tokenizer, args.work / f"{n}.npy") for n in names]
    with ThreadPoolExecutor(2) as pool:
        streams = [pool.submit(encode, *f) for f in files]
        if not args.no_compile:
            compile_all(fast, args.micro, args.length, warm_up=not args.warm)
        device = fast.model.device
        train, held = (torch.from_numpy(s.result().astype("int32")).to(device) for s in streams)
    return train, held


def gradients(
    fast: FastForward, batch: tuple[torch.Tensor, torch.Tensor], micro: int, sparse: bool
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Accumulate a step's gradients. Returns mean nats, the indexer's loss, every layer's load."""
    pieces = list(zip(batch[0].split(micro), batch[1].split(micro), strict=True))
    means, indexes, loads = [], [], []
    for ids, targets in pieces:
        nats, index, load = fast.loss(ids, targets, sparse)
        ((nats.mean() + index) / len(pieces)).backward()
        means.append(nats.detach().mean())
        indexes.append(index.detach())
        loads.append(load)
    total = [torch.stack(layer).sum(0) for layer in zip(*loads, strict=True)]
    return torch.stack(means).mean(), torch.stack(indexes).mean(), total


def main() -> None:
    args = parse()
    started = time.time()
    args.work.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    model = build(args.seed).to(device)
    optimiser = Optimiser(model, args.adam_lr, args.muon_lr, args.weight_decay)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    fast = FastForward(model, dtype, compiled=not args.no_compile)
    stream, held_stream = load_data(args, fast)
    held_size = text_bytes(args.corpus / "heldout.txt.xz")
    rows = Rows(stream, args.batch, args.length, args.seed)
    held = held_out_rows(held_stream, args.length)
    per_step = args.batch * args.length
    total = int(args.tokens / per_step)
    step, before = restore(args, model, optimiser)
    state_path, log_path = args.work / "state.pt", args.work / "train_log.jsonl"
    print(f"{stream.numel() / 1e6:.1f} M tokens, {total} steps of {per_step}", flush=True)
    print(f"ready after {time.time() - started:.0f} s: {optimiser.formats()}", flush=True)
    mark, mark_step, interactive, done = time.time(), step, sys.stdout.isatty(), 0.0
    while done < 1.0 and step < args.stop_at_step:
        done = max(step / total, (time.time() - started) / args.budget_s)
        sparse, quantised = done >= args.sparse_from, done >= args.quantise_from
        factor = rate(step - args.warm_step, done, args.warmup, args.decay)
        optimiser.publish(quantised)
        nats, index, loads = gradients(fast, rows.at(step), args.micro, sparse)
        worst = balance(model, loads, BIAS_STEP * min(1.0, 2 * factor))
        optimiser.step(factor)
        step += 1
        last = done >= 1.0 or step >= total
        done = 1.0 if last else done
        if step % args.report_every and not last:
            continue
        nats_now, now = float(nats), time.time()  # float() waits for the device
        if not math.isfinite(nats_now):
            raise RuntimeError(f"loss is not finite at step {step}")
        row = {
            "step": step, "tokens": step * per_step, "nats": round(nats_now, 4),
            "index_kl": round(float(index), 4), "worst_load": round(float(worst), 2),
            "tokens_per_s": round((step - mark_step) * per_step / (now - mark)),
            "sparse": sparse, "quantised": quantised, "rate": round(factor, 4),
            "elapsed_s": round(before + now - started, 1),
        }  # fmt: skip
        if step % args.eval_every == 0 or last:
            optimiser.publish(quantised or last)
            row["held_out_bpb"] = round(evaluate(fast, held, held_size, args.micro, sparse), 4)
        with log_path.open("a") as log:
            log.write(json.dumps(row) + "\n")
        end = "" if interactive and not last else "\n"
        print("\r" * interactive + progress(row, total), end=end, flush=True)
        if step % (2 * args.eval_every) == 0:
            save(state_path, model, optimiser, step, before + now - started)
        mark, mark_step = time.time(), step
    save(state_path, model, optimiser, step, before + time.time() - started)
    if device.type == "cuda":
        print(f"peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB", flush=True)


def progress(row: dict[str, Any], total: int) -> str:
    """One line: a bar, then what matters."""
    filled = round(24 * row["step"] / total)
    held = f"  held out {row['held_out_bpb']:.4f} bits/byte" if "held_out_bpb" in row else ""
    return (
        f"[{'#' * filled}{'.' * (24 - filled)}] {row['step']}/{total}  {row['nats']:.3f} nats  "
        f"indexer {row['index_kl']:.3f}  {row['tokens_per_s'] / 1e3:.0f}k tokens/s{held}"
    )


if __name__ == "__main__":
    main()
