"""What @autotune and @heuristics around a JIT function decide for one launch, with no GPU to time.

Triton would time the configurations and leave out those that do not fit. Here they come in their
own order, after the kernel's own pruning, and the caller takes the first that fits. A
configuration's pre_hook (it zeroes a sum, or gives a tensor descriptor its block) runs as before a
real launch. Nothing here compiles, and nothing is imported from Triton.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isobath.emulator.faults import LaunchError


def choices(
    kernel: Any, args: Sequence[Any], named: Mapping[str, Any]
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The JIT function below the decorators with `named` and the values they add, best first; more
    than one only if an @autotune has several configurations and `named` does not say what it tunes.
    """
    if hasattr(kernel, "_pack_args"):
        yield kernel, dict(named)
        return
    inner = getattr(kernel, "fn", None)
    if inner is None or type(kernel).__name__ == "InterpretedFunction":
        raise LaunchError(
            f"emulator: cannot compile a {type(kernel).__name__}",
            do="pass a function decorated with @triton.jit, and unset TRITON_INTERPRET",
        )
    known = dict(zip(getattr(kernel, "arg_names", ()), args, strict=False)) | dict(named)
    configs = getattr(kernel, "configs", None)
    if configs and not set(configs[0].kwargs) & set(named):
        for config in _pruned(kernel, args, named):
            values = config.all_kwargs()
            if config.pre_hook is not None:
                config.pre_hook(known | values)
            yield from choices(inner, args, dict(named) | values)
        return
    heuristics = getattr(kernel, "values", None)
    added: dict[str, Any] = {}
    if isinstance(heuristics, dict):
        for name, choose in heuristics.items():
            added[name] = choose(known | added)
    yield from choices(inner, args, dict(named) | added)


def _pruned(kernel: Any, args: Sequence[Any], named: Mapping[str, Any]) -> list[Any]:
    """The configurations that the kernel's early_config_prune leaves. One that asks for a GPU, or
    for what NumPy's arrays lack, fails here and prunes nothing."""
    configs = list(kernel.configs)
    prune = getattr(kernel, "early_config_prune", None)
    if prune is None:
        return configs
    by_name = dict(zip(kernel.arg_names, args, strict=False))
    try:
        return list(prune(configs, by_name, **named)) or configs
    except Exception:
        return configs
