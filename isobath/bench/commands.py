"""`isobath bench` as typer sees it. Imports nothing heavy; each command loads what it measures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isobath.client.commands import Key, Name, Url
from isobath.config import variable

bench = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True)
Model = Annotated[
    Path | None, typer.Option(help="Folder of a checkpoint.", show_default="the bundled model")
]


@bench.command("serve")
def serve(
    url: Url = "http://localhost:8000",
    model_name: Name = None,
    api_key: Key = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Folder, or name on the hub.", show_default="the server's checkpoint"),
    ] = None,
    input_len: Annotated[
        int, typer.Option("--input-len", "--random-input-len", min=1, help="Tokens of a prompt.")
    ] = 512,
    output_len: Annotated[
        int, typer.Option("--output-len", "--random-output-len", min=1, help="New tokens.")
    ] = 512,
    num_prompts: Annotated[int, typer.Option(min=1, help="Requests in all.")] = 10240,
    max_concurrency: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 1024,
    client: Annotated[
        str | None,
        typer.Option(help="vllm, guidellm or aiperf.", show_default="those on the PATH"),
    ] = None,
    run: Annotated[
        bool, typer.Option("--run", help="Run it; the first, without --client.")
    ] = False,
) -> None:
    """Print the commands by which other programs measure a running server under load.

    isobath has no load generator: what is printed are command lines of vllm bench serve, guidellm
    and aiperf, filled in for that server.
    """
    from isobath.client import benchmarks

    clients = benchmarks.chosen(client)
    key = api_key or variable("ISOBATH_API_KEY", "") or None
    target = benchmarks.target_of(url, model=model_name, tokenizer=tokenizer, api_key=key)
    load = benchmarks.Load(input_len, output_len, num_prompts, max_concurrency)
    for line in benchmarks.lines(clients[:1] if run else clients, target, load):
        print(line, flush=True)
    if run:
        benchmarks.run(clients[0], target, load)


@bench.command("cpu")
def cpu(
    model: Model = None,
    tokens: Annotated[int, typer.Option(help="New tokens a sequence.")] = 64,
    repeats: Annotated[int, typer.Option(help="Runs, of which the median counts.")] = 3,
) -> None:
    """Generation beside transformers; the last line of stdout is one JSON object."""
    from isobath.bench import cpu

    cpu.main(model, tokens=tokens, repeats=repeats)


@bench.command("throughput")
def throughput(
    model: Model = None,
    requests: Annotated[int, typer.Option(help="Requests at once.")] = 32,
    tokens: Annotated[int, typer.Option(help="New tokens a request.")] = 64,
    compare: Annotated[bool, typer.Option(help="Also run transformers on a batch.")] = False,
) -> None:
    """Many requests together and one after another; the last line is one JSON object."""
    from isobath.bench import throughput

    throughput.main(model, requests=requests, tokens=tokens, compare=compare)


@bench.command("latency")
def latency(
    model: Model = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Sequences of a batch.")] = 8,
    input_len: Annotated[int, typer.Option(min=1, help="Tokens of a prompt.")] = 32,
    output_len: Annotated[int, typer.Option(min=1, help="New tokens a sequence.")] = 128,
    num_iters_warmup: Annotated[int, typer.Option(min=0, help="Batches that do not count.")] = 2,
    num_iters: Annotated[int, typer.Option(min=1, help="Batches that do.")] = 10,
    device: Annotated[str, typer.Option(help="auto, gpu or cpu.")] = "auto",
) -> None:
    """How long a batch takes, and to its first token; the last line is one JSON object."""
    from isobath.bench import latency

    batch = latency.Batch(batch_size, input_len, output_len, num_iters_warmup, num_iters)
    latency.main(model, batch, device=device)


@bench.command("ops")
def ops(
    op: Annotated[str | None, typer.Option(help="Only this op.")] = None,
    backend: Annotated[str | None, typer.Option(help="Only this backend.")] = None,
    dialect: Annotated[str | None, typer.Option(help="Only this dialect: ocp or fnuz.")] = None,
    rows: Annotated[Path | None, typer.Option("--json", help="Append rows to this file.")] = None,
    device: Annotated[str, typer.Option(help="auto, gpu or cpu.")] = "auto",
) -> None:
    """Every op, backend and case against its reference; the last line is one JSON object."""
    from isobath.bench import ops

    ops.main(op, backend, dialect, rows, device)


@bench.command("scheduler")
def scheduler(
    steps: Annotated[int, typer.Option(min=4, help="Decode steps that are timed.")] = 128,
    context: Annotated[int, typer.Option(min=1, help="Tokens of a sequence.")] = 2048,
) -> None:
    """Python time of a step without a model; the last line of stdout is one JSON object."""
    from isobath.bench import scheduler

    scheduler.main(steps=steps, context=context)


@bench.command("serve-overhead")
def serve_overhead(
    tokens: Annotated[int, typer.Option(min=4, help="Tokens of a stream.")] = 64,
) -> None:
    """What the server costs a token; the last line of stdout is one JSON object."""
    from isobath.bench import serve_overhead

    serve_overhead.main(tokens=tokens)


def register(app: typer.Typer) -> None:
    """Add the group to the command line."""
    app.add_typer(bench, name="bench")
