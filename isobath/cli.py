"""The command line: parses arguments, calls the packages, prints. Nothing is computed here.

torch is imported inside the commands that need it, so that `isobath --help` and completion answer
at once. Results go to stdout; progress, timing and errors to stderr. Exit codes: 0 done, 1 an
IsobathError (shown in its four parts; --debug shows the traceback too), 2 wrong usage.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isobath.bench import commands as bench_commands
from isobath.client import commands
from isobath.config import ServerConfig
from isobath.errors import IsobathError
from isobath.server import command
from isobath.server.flag_values import Note

if TYPE_CHECKING:
    from isobath import LLM, Completion, SamplingParams
    from isobath.model.inspect import Inspection
    from isobath.plan import Plan


app = typer.Typer(
    help="DeepSeek-V4-Flash, the same answer on every FP8 dialect and on a CPU.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _serve(config: ServerConfig, notes: list[Note]) -> int:
    """Serve until told to stop; the exit code."""
    if config.ray:
        return _serve_on_ray(config)
    from isobath.server import lifecycle

    return lifecycle.run(config, notes)


def _serve_on_ray(config: ServerConfig) -> int:
    from isobath.errors import ConfigError

    try:
        from isobath import ray_app
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ConfigError("--ray", found="no ray here", do="pip install 'isobath[ray]'") from error
    return ray_app.run(config)


command.register(app, _serve)
commands.register(app)
bench_commands.register(app)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]
Model = Annotated[
    Path | None, typer.Option(help="Folder of a checkpoint.", show_default="the bundled model")
]


def _show_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def front(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Versions.")
    ] = False,
) -> None:
    """Options that stand before the command; main() acts on --debug."""


@app.command()
def generate(
    prompt: Annotated[str, typer.Option(help="Text to complete; - reads it from stdin.")],
    model: Model = None,
    max_tokens: Annotated[int, typer.Option(help="Most tokens to generate.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="Sample from this many tokens; 0 is all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Sample from this much probability.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable.")] = None,
    numerics: Annotated[str, typer.Option(help="native, or exact: fp32 throughout.")] = "native",
    dialect: Annotated[str, typer.Option(help="FP8 in memory: auto, ocp or fnuz.")] = "auto",
    ignore_eos: Annotated[bool, typer.Option(help="Go on after the end of sentence.")] = False,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="CPU threads.", show_default="1 for the bundled model"),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, gpu or cpu.")] = "auto",
    load_format: Annotated[
        str, typer.Option(help="auto, or dummy: random weights, of V4-Flash's shape by default.")
    ] = "auto",
    layers: Annotated[int, typer.Option(help="Of a dummy, only the first; 0 is all.")] = 0,
    expert_sets: Annotated[
        int, typer.Option(help="Of a dummy, that its layers share; 0 is one a layer.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Complete a prompt; the text appears as it is generated."""
    import torch

    from isobath import LLM, SamplingParams
    from isobath.model.dummy import Dummy

    if load_format not in ("auto", "dummy"):
        raise typer.BadParameter("--load-format is auto or dummy")

    # Its products are too small to share: one thread made 114, 115 and 130 tokens/s, two made 8,
    # 100 and 127 (2026-11-21, 2-core CPU with other work, 64 tokens, random model of width 128).
    if threads or model is None:
        torch.set_num_threads(threads or 1)
    params = SamplingParams(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        ignore_eos=ignore_eos,
    )
    dummy = Dummy(layers, expert_sets) if load_format == "dummy" else None
    llm = LLM(model, numerics=numerics, dialect=dialect, device=device, dummy=dummy)
    _complete(llm, sys.stdin.read() if prompt == "-" else prompt, params, as_json=as_json)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="Folder of a checkpoint, or of its index alone.")],
    as_json: Json = False,
) -> None:
    """Say what a checkpoint is, whether it would load and which GPUs it fits."""
    from isobath import plan as plans
    from isobath.model.inspect import inspect as look

    found = look(path)
    context = min(plans.parse_tokens("128k"), found.context)
    fits = {
        gpu.name: plans.plan(found.config, gpu.memory_bytes, context=context)
        for gpu in plans.GPUS.values()
    }
    if as_json:
        rows = {name: row.as_dict() for name, row in fits.items()}
        print(json.dumps(found.as_dict() | {"fits": rows}))
    else:
        _show_inspection(found)
        for name, row in fits.items():
            print(f"{name}: {row.verdict}")
    if found.problems:
        raise SystemExit(1)


@app.command()
def plan(
    context: Annotated[str, typer.Option(help="Tokens of a sequence: 8192, 128k, 1m.")] = "128k",
    concurrency: Annotated[int, typer.Option(help="Sequences at the same time.")] = 1,
    gpu: Annotated[str | None, typer.Option(help="A GPU by name.", show_default="all")] = None,
    memory_gib: Annotated[float | None, typer.Option(help="Of another device.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder or config.json.", show_default="V4-Flash's shape")
    ] = None,
    reserve_gib: Annotated[float, typer.Option(help="For runtime and activations.")] = 8.0,
    as_json: Json = False,
) -> None:
    """Say whether a model fits a GPU with its cache, and what limits."""
    from isobath import plan as plans

    if gpu and memory_gib:
        raise typer.BadParameter("--gpu and --memory-gib exclude each other")
    if model:
        from isobath.model.revision import read_config

        config = read_config(model)
    else:
        config = plans.flash_config()
    if memory_gib:
        devices = {f"{memory_gib:g} GiB": int(memory_gib * plans.GIB)}
    else:
        known = [plans.gpu(gpu)] if gpu else plans.GPUS.values()
        devices = {g.name: g.memory_bytes for g in known}
    tokens, reserve = plans.parse_tokens(context), int(reserve_gib * plans.GIB)
    rows = {
        name: plans.plan(config, memory, context=tokens, concurrency=concurrency, reserve=reserve)
        for name, memory in devices.items()
    }
    if as_json:
        print(json.dumps({name: row.as_dict() for name, row in rows.items()}))
    else:
        _show_plans(rows)


@app.command()
def doctor(
    op: Annotated[str | None, typer.Option(help="Only this op.")] = None,
    case: Annotated[str | None, typer.Option(help="Only this case of it.")] = None,
    backend: Annotated[str | None, typer.Option(help="Only this backend.")] = None,
    dialect: Annotated[str | None, typer.Option(help="Only this dialect: ocp or fnuz.")] = None,
    model: Model = None,
    layers: Annotated[bool, typer.Option("--layers", help="Also op by op in the model.")] = False,
    device: Annotated[str, typer.Option(help="auto, gpu or cpu.")] = "auto",
    save: Annotated[
        Path | None,
        typer.Option(help="Verdict file.", show_default="the one that the engine reads"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check every kernel and the whole model on this machine; exit code 1 if anything is wrong."""
    from rich.console import Console

    from isobath.doctor.report import WIDTH, show
    from isobath.doctor.run import Round, run
    from isobath.ops.examine import Wanted

    wanted = Wanted(op, backend, dialect, case)
    report = run(Round(wanted, device, model, layers, save))
    if as_json:
        print(json.dumps(report.as_dict()))
    else:
        show(report, Console(width=None if sys.stdout.isatty() else WIDTH))
    raise SystemExit(report.exit_code)


@app.command()
def xcompile(
    target: Annotated[
        list[str] | None, typer.Option(help="gfx942, gfx950 or sm_90.", show_default="all")
    ] = None,
    op: Annotated[list[str] | None, typer.Option(help="An op.", show_default="all")] = None,
    flash: Annotated[bool, typer.Option(help="Also what V4-Flash launches.")] = True,
    execute: Annotated[
        bool, typer.Option("--execute", help="Count gfx942's cases in the emulator.")
    ] = False,
    record: Annotated[Path | None, typer.Option(help="Append rows to this file.")] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Fail where machine code differs from this record.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compile every kernel for GPUs that are not here; exit 1 when a contract is broken."""
    from isobath.xcompile import run

    files = {"recorded": record, "compared": compare}
    code = run.main(target or (), op or (), as_json=as_json, flash=flash, execute=execute, **files)
    raise SystemExit(code)


@app.command()
def emulate(
    op: Annotated[list[str] | None, typer.Option(help="An op.", show_default="all")] = None,
    case: Annotated[str | None, typer.Option(help="A case by name.", show_default="all")] = None,
    dialect: Annotated[str, typer.Option(help="FP8 dialect: fnuz or ocp.")] = "fnuz",
    exact: Annotated[bool, typer.Option("--exact", help="Bit-exact matrix products.")] = False,
    checks: Annotated[str, typer.Option(help="all, none, or waits,lds,poison,schedule.")] = "all",
    record: Annotated[
        Path | None, typer.Option(help="JSON lines, a row a kernel; renewed for these ops.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="A page of all rows, every check on; rows beside it.")
    ] = None,
    also: Annotated[
        list[str] | None, typer.Option(help="Python of an environment with another Triton.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run ops' gfx942 machine code on this CPU; exit 1 when a case disagrees."""
    from isobath.xcompile import emulate_run

    plan = emulate_run.Plan(dialect, exact, checks, as_json, record, report, tuple(also or ()))
    raise SystemExit(emulate_run.main(op or (), case, plan))


@app.command()
def version() -> None:
    """Print the versions that a report needs."""
    from importlib import metadata
    from platform import python_version

    from isobath import __version__

    print(f"isobath {__version__}, torch {metadata.version('torch')}, python {python_version()}")


def _complete(llm: LLM, prompt: str, params: SamplingParams, *, as_json: bool) -> None:
    """Stream the prompt and its completion to stdout, or print one JSON object at the end."""
    _ = llm.engine  # says what it holds before the text begins
    start = time.perf_counter()
    if not as_json:
        print(prompt, end="", flush=True)
    pieces = llm.stream(prompt, params)
    while True:
        try:
            piece = next(pieces)
        except StopIteration as end:
            done: Completion = end.value
            break
        if not as_json:
            print(piece, end="", flush=True)
    seconds = time.perf_counter() - start
    new = len(done.token_ids)
    if as_json:
        facts = {
            "prompt": prompt,
            "text": done.text,
            "token_ids": done.token_ids,
            "prompt_token_ids": done.prompt_token_ids,
            "finish_reason": done.finish_reason,
            "seconds": seconds,
            "tokens_per_s": new / seconds,
            "numerics": llm.numerics,
            "dialect": llm.dialect.name,
        }
        print(json.dumps(facts))
        return
    print()
    rate = f"{new} tokens in {seconds:.2f} s, {new / seconds:.1f} tokens/s"
    print(f"{rate} ({llm.numerics}, {llm.dialect}, {done.finish_reason})", file=sys.stderr)


def _show_plans(rows: dict[str, Plan]) -> None:
    from rich.console import Console
    from rich.table import Table

    gib = float(1 << 30)
    first = next(iter(rows.values()))
    table = Table(
        title=f"weights {first.weight_bytes / gib:.2f} GiB, reserve "
        f"{first.reserve_bytes / gib:.2f} GiB, cache {first.sequence_bytes / 1e6:,.1f} MB a "
        f"sequence of {first.context:,} tokens",
    )
    for column in ("GPU", "GiB", "for cache", "sequences", "longest context", "verdict"):
        table.add_column(column, justify="left" if column in ("GPU", "verdict") else "right")
    for name, row in rows.items():
        table.add_row(
            name,
            f"{row.memory_bytes / gib:.1f}",
            f"{row.cache_bytes / gib:.1f}",
            f"{row.max_sequences:,}",
            f"{row.max_context:,}",
            row.verdict,
        )
    Console().print(table)


def _show_inspection(found: Inspection) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("part", "tensors", "bytes", title=f"{found.path}: {found.revision}")
    for name, size in found.classes.items():
        table.add_row(name, f"{size.tensors:,}", f"{size.bytes:,}")
    table.add_row("all", f"{found.tensors:,}", f"{found.bytes:,}", style="bold")
    console = Console()
    console.print(table)
    console.print(
        f"{found.parameters:,} parameters, experts {found.experts}, FP8 {found.dialect}, draft "
        f"{found.draft} ({found.num_draft_layers} layers), context {found.context:,}; sizes from "
        f"the {found.source}, {found.files_present} of {found.files} files present",
        highlight=False,
        soft_wrap=True,
    )
    for problem in found.problems:
        console.print(f"problem: {problem}", style="red", highlight=False, soft_wrap=True)
    if not found.problems:
        console.print("would load")


def main() -> None:
    """Entry point of the `isobath` command."""
    log, to_stderr = logging.getLogger("isobath"), logging.StreamHandler(sys.stderr)
    log.addHandler(to_stderr)
    log.setLevel(logging.INFO)
    try:
        app(prog_name="isobath")
    except IsobathError as error:
        if "--debug" in sys.argv[1:]:
            raise
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        log.removeHandler(to_stderr)


if __name__ == "__main__":
    main()
