"""Draw the training log: training nats, held-out bits per byte and the indexer's loss over tokens.

python scripts/tiny/plot.py --log scripts/tiny/train_log.jsonl --out scripts/tiny/training.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt

INK, MUTED, COLOURS = "#1a1a1a", "#8a8a8a", ("#8fb0d9", "#1f4e8c")  # first leg, second leg


def main() -> None:
    parser = argparse.ArgumentParser(description="Plot a training log of isobath-tiny.")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.log.read_text().splitlines()]
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.2), dpi=130)
    panels = (
        ("nats", "training loss, nats per token", (1.2, 3.0)),
        ("held_out_bpb", "held out, bits per byte", (0.8, 1.05)),
        ("index_kl", "indexer KL, two layers, nats", (0.0, 0.4)),
    )
    for axis, (key, title, limits) in zip(axes, panels, strict=True):
        for leg in sorted({row.get("leg", 1) for row in rows}):
            own = [row for row in rows if row.get("leg", 1) == leg and key in row]
            x, y = [row["tokens"] / 1e6 for row in own], [row[key] for row in own]
            mark = "o" if key == "held_out_bpb" else None
            axis.plot(x, y, color=COLOURS[(leg - 1) % 2], lw=1.3, marker=mark, ms=3)
        axis.set(ylim=limits, xlabel="million tokens")
        axis.set_title(title, fontsize=9, color=INK, loc="left")
        for word, flag in (("top-k", "sparse"), ("FP4, FP8", "quantised")):
            start = next((row["tokens"] / 1e6 for row in rows if row[flag]), None)
            if start is not None:
                axis.axvline(start, color=MUTED, lw=0.6, ls=":")
                axis.text(start + 6, limits[1], word, color=MUTED, fontsize=7, va="top")
    final = [row for row in rows if "held_out_bpb" in row][-1]
    place = (final["tokens"] / 1e6, final["held_out_bpb"])
    axes[1].annotate(
        f"{place[1]:.4f}", place, (0, -6), textcoords="offset points", ha="right", va="top",
        color=COLOURS[1],
    )  # fmt: skip
    figure.tight_layout()
    figure.savefig(args.out)


if __name__ == "__main__":
    main()
