"""The house rules as functions: each takes the root of a tree and returns what breaks it there.

They read source with `ast` and import nothing of the package, so a broken tree can still be judged.
Assumes the layout `isobath/`, `scripts/`, `tests/` under the root; a missing folder has no files.
What each rule is for stands in CONTRIBUTING.md; what calls them is test_house_rules.py.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path

LADDER = (
    ("errors",),
    ("config",),  # its records refuse values that cannot mean anything
    ("numerics",),
    ("cache", "target"),
    ("ops",),
    ("model", "parallel"),
    ("chat",),  # reads the checkpoint's texts and tokenizer; knows no engine
    ("plan",),  # counts the bytes of the model's inventory; nothing in the model asks it
    ("engine",),
    ("server",),
    ("ray_app", "client"),  # the server under Ray Serve; the terminal's client of any server
    ("emulator",),  # reads numerics and errors alone, see EMULATOR_READS; what judges reads it
    ("xcompile", "bench"),
    ("doctor",),  # without a GPU it has machine code emulated
    ("cli",),  # fronts all of them
    ("__main__",),
)
RUNGS = {name: rung for rung, names in enumerate(LADDER) for name in names}
FACE = "isobath"
FACE_RUNG = RUNGS["engine"]
"""`isobath/__init__.py` hands out the engine's names: importing it is importing the engine."""
EMULATOR_READS = {"numerics", "errors"}

DIALECT_NUMBERS = {448, 240, 224, 576, 584}
MAX_LINES, LONG_LINES = 500, 300
MAX_FUNCTION, MAX_KERNEL = 60, 150
MAX_MAP_LINES = 150
MARKS = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b")
SKIPS = {"skip", "skipif", "xfail", "importorskip"}

Rule = Callable[[Path], list[str]]


def files(root: Path, *folders: str) -> Iterator[tuple[str, str]]:
    """(path relative to the root, source) of every Python file in the folders."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            yield path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, wherever it stands; relative ones start with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names = [base] if base != FACE else [f"{base}.{a.name}" for a in node.names]
            yield from ((node.lineno, name) for name in names)


def import_ladder(root: Path) -> list[str]:
    """A file imports only from lower rungs or from its own package. Models' files are data."""
    found = []
    for path, source in files(root, FACE):
        own = path.split("/")[1].removesuffix(".py")
        if own == "models":
            continue
        rung = FACE_RUNG + 0.5 if own == "__init__" else RUNGS.get(own)
        if rung is None:
            found.append(f"{path}: {own} has no rung on the ladder")
            continue
        for line, name in imports(ast.parse(source)):
            if name.startswith("."):
                found.append(f"{path}:{line}: relative import {name}")
            if name.split(".")[0] != FACE:
                continue
            target = name.split(".")[1] if "." in name else ""
            lower = RUNGS.get(target, FACE_RUNG) < rung
            if own == "emulator":
                lower = target in EMULATOR_READS
            if target != own and not lower:
                found.append(f"{path}:{line}: {own} may not import {name}")
    return found


def dialect_numbers(root: Path) -> list[str]:
    """448, 240, 224, 576 and 584 are spelled in numerics/ and cache/layout.py alone."""
    found = []
    for path, source in files(root, FACE):
        if path.startswith("isobath/numerics/") or path == "isobath/cache/layout.py":
            continue
        for node in ast.walk(ast.parse(source)):
            number = isinstance(node, ast.Constant) and type(node.value) in (int, float)
            if number and node.value in DIALECT_NUMBERS:
                found.append(f"{path}:{node.lineno}: bare {node.value}")
    return found


def sizes(root: Path) -> list[str]:
    """Files have at most 500 lines, functions 60, functions beside Triton kernels 150."""
    found = []
    for path, source in files(root, FACE, "scripts", "tests"):
        lines = source.count("\n")
        if lines > MAX_LINES:
            found.append(f"{path}: {lines} lines, at most {MAX_LINES}")
        limit = MAX_KERNEL if _is_device_code(path) else MAX_FUNCTION
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > limit:
                    found.append(f"{path}:{node.lineno}: {node.name} has {length} lines > {limit}")
    return found


def long_files(root: Path) -> list[str]:
    """Not an error: files that have outgrown the intended 300 lines."""
    return [
        f"{path}: {source.count(chr(10))} lines"
        for path, source in files(root, FACE, "scripts", "tests")
        if source.count("\n") > LONG_LINES
    ]


def docstrings(root: Path) -> list[str]:
    """Every module says what it owns."""
    return [
        f"{path}: no docstring"
        for path, source in files(root, FACE, "scripts", "tests")
        if not ast.get_docstring(ast.parse(source))
    ]


def no_utils(root: Path) -> list[str]:
    """A module is named after what it owns; `utils` and its kin own nothing."""
    kin = {"util", "utils", "helper", "helpers", "misc", "common"}
    return [
        f"{path}: name it after what it owns"
        for path, _ in files(root, FACE, "scripts", "tests")
        if kin & set(path.removesuffix(".py").split("/"))
    ]


def environment(root: Path) -> list[str]:
    """config.py is the only reader of the environment."""
    found = []
    for path, source in files(root, FACE):
        if path == "isobath/config.py":
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Attribute | ast.Name):
                name = node.attr if isinstance(node, ast.Attribute) else node.id
                if name in ("environ", "getenv", "putenv"):
                    found.append(f"{path}:{node.lineno}: {name}")
    return found


def outside_authorities(root: Path) -> list[str]:
    """transformers and ml_dtypes judge the package; of it only the benchmarks' peer loads one."""
    peer = "isobath/bench/peer.py"
    return _imports_of(root, ("transformers", "ml_dtypes"), lambda path: path == peer)


def triton_imports(root: Path) -> list[str]:
    """Only triton_*.py and tl_*.py import triton: everything else loads on any machine."""
    return _imports_of(root, ("triton",), _is_device_code)


def _is_device_code(path: str) -> bool:
    name = path.rsplit("/", 1)[-1]
    return "triton" in name or name.startswith("tl_")


def _imports_of(root: Path, modules: tuple[str, ...], allowed: Callable[[str], bool]) -> list[str]:
    return [
        f"{path}:{line}: imports {name}"
        for path, source in files(root, FACE)
        if not allowed(path)
        for line, name in imports(ast.parse(source))
        if name.split(".")[0] in modules
    ]


def unfinished(root: Path) -> list[str]:
    """No work left for later and no test that does not run."""
    found = []
    for path, source in files(root, FACE, "scripts", "tests"):
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT and MARKS.search(token.string):
                found.append(f"{path}:{token.start[0]}: {token.string.strip()}")
        for node in ast.walk(ast.parse(source)):
            match node:
                case ast.Assert(test=ast.Constant(value=value)) if not value:
                    found.append(f"{path}:{node.lineno}: assert of a false constant")
            if isinstance(node, ast.Name) and node.id == "NotImplemented" + "Error":
                found.append(f"{path}:{node.lineno}: {node.id}")
            if isinstance(node, ast.Attribute) and node.attr in SKIPS and _of_pytest(node):
                found.append(f"{path}:{node.lineno}: pytest {node.attr}")
    return found


def _of_pytest(node: ast.Attribute) -> bool:
    return ast.unparse(node).startswith("pytest.")


def architecture_map(root: Path) -> list[str]:
    """ARCHITECTURE.md is short, names only what exists, and names every part of the package."""
    page = root / "ARCHITECTURE.md"
    if not page.exists():
        return ["ARCHITECTURE.md: missing"]
    text = page.read_text(encoding="utf-8")
    lines = text.count("\n")
    found = [f"ARCHITECTURE.md: {lines} lines > {MAX_MAP_LINES}"] if lines > MAX_MAP_LINES else []
    named = set(re.findall(r"`([\w.<>*/-]*(?:/|\.py|\.md)[\w.<>*/-]*)`", text))
    for path in sorted(named):
        pattern = re.sub(r"<\w+>", "*", path).rstrip("/")
        if not any(root.glob(pattern)) and not any((root / FACE).glob(pattern)):
            found.append(f"ARCHITECTURE.md: {path} does not exist")
    for part in sorted((root / FACE).glob("*")):
        is_part = part.suffix == ".py" or (part / "__init__.py").exists()
        name = part.name if part.suffix else f"{part.name}/"
        if is_part and not any(p.removeprefix("isobath/").startswith(name) for p in named):
            found.append(f"ARCHITECTURE.md: isobath/{name} is not on the map")
    return found


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        import_ladder,
        dialect_numbers,
        sizes,
        docstrings,
        no_utils,
        environment,
        outside_authorities,
        triton_imports,
        unfinished,
        architecture_map,
    )
}
