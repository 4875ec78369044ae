"""Build isobath-tiny's training text: fetch, clean, de-duplicate, split.

Owns the way from the packages in `sources.py` to four files in the output folder: `train.txt.xz`
and `heldout.txt.xz` (documents separated by a NUL byte), the fetched packages under `debs/`, and a
manifest beside this script that is committed. A document is one source file after cleaning. Exact
duplicates go, and so does every prose paragraph of 200 characters or more that has been seen
before. About one document in a hundred, chosen by its hash, is held out. The order of documents is
by hash, so the result depends on the packages alone.

    python scripts/tiny/corpus.py --out .train
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import lzma
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chat import from_code, from_prose
from clean import clean_code, clean_html, clean_rst, keep
from sources import SOURCES, Source

CODE_SHARE = 0.40  # of the text: prose should outweigh code about 60 to 40
SOURCE_CAP_BYTES = 9_000_000  # no single package may dominate; the standard library is exempt
HELD_OUT_PERCENT = 1
_SKIP_CODE = (
    "/test/",
    "/tests/",
    "test_",
    "/idlelib/",
    "/lib2to3/",
    "/pydoc_data/",
    "/encodings/",
    "/_vendor/",
    "/_distutils_hook",
    "/locale/",
    "/migrations/",
    "conftest",
    "/msvc",
    "/ensurepip/",
    "/externals/",
    "_config_vars",
    "/unicode_codes",
    "_mapping.py",
    "/_sysconfigdata",
    "/typeshed/",
)
_SKIP_PROSE = (
    "genindex",
    "search.html",
    "/_static/",
    "/_modules/",
    "/changelog",
    "/whatsnew/changelog",
    "bookindex",
    "releasenotes",
    "release-notes",
    "/print.html",
    "/misc/NEWS",
    "sqlite_keywords",
    "/api/generated",
)


@dataclass(frozen=True, slots=True)
class Document:
    source: Source
    text: str
    digest: bytes

    @property
    def is_code(self) -> bool:
        return self.source.kind == "code"


def wanted(source: Source, path: str) -> bool:
    """Whether a package's file is one that `source.kind` reads."""
    if source.paths and not any(part in path for part in source.paths):
        return False
    if source.kind == "code":
        return path.endswith(".py") and not any(part in path for part in _SKIP_CODE)
    if any(part in path for part in _SKIP_PROSE):
        return False
    if source.kind == "rst":
        return ("_sources/" in path and path.endswith((".txt", ".rst"))) or path.endswith(".rst")
    return path.endswith((".html", ".html.en"))


def read_package(deb: Path, source: Source) -> Iterator[str]:
    """Yield the cleaned text of every wanted file in a Debian package, in the package's order."""
    cleaner = {"rst": clean_rst, "html": clean_html, "code": clean_code}[source.kind]
    tar = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", str(deb)], check=True, capture_output=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive:
            if not member.isfile() or member.size > 1_500_000 or not wanted(source, member.name):
                continue
            handle = archive.extractfile(member)
            if handle is None:
                continue
            try:
                yield cleaner(handle.read().decode("utf-8"))
            except UnicodeDecodeError:
                continue


def fetch(package: str, folder: Path) -> Path:
    """Download a package once; `apt-get update` must have run."""
    found = sorted(folder.glob(f"{package}_*.deb"))
    if not found:
        subprocess.run(
            ["apt-get", "download", "-q", package],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        found = sorted(folder.glob(f"{package}_*.deb"))
    return found[-1]


def without_repeats(text: str, seen: set[bytes]) -> str:
    """Drop long paragraphs that occurred in an earlier document."""
    kept = []
    for paragraph in text.split("\n\n"):
        if len(paragraph) >= 200:
            digest = hashlib.sha256(paragraph.encode()).digest()[:12]
            if digest in seen:
                continue
            seen.add(digest)
        kept.append(paragraph)
    return "\n\n".join(kept)


def collect(folder: Path) -> tuple[list[Document], list[dict[str, object]]]:
    """Read every source. Returns the documents and one manifest row per package."""
    documents: list[Document] = []
    rows: list[dict[str, object]] = []
    seen_text: set[bytes] = set()
    seen_paragraphs: set[bytes] = set()
    for source in SOURCES:
        deb = fetch(source.package, folder)
        limit = SOURCE_CAP_BYTES if source.licence != "PSF-2.0" else 1 << 40
        texts = sorted(
            set(read_package(deb, source)), key=lambda t: hashlib.sha256(t.encode()).digest()
        )
        size = count = 0
        for raw in texts:
            text = raw if source.kind == "code" else without_repeats(raw, seen_paragraphs)
            digest = hashlib.sha256(text.encode()).digest()
            if size > limit or digest in seen_text or not keep(text):
                continue
            seen_text.add(digest)
            documents.append(Document(source, text, digest))
            size += len(text.encode())
            count += 1
        rows.append(
            {
                "package": source.package,
                "version": deb.name.split("_")[1].replace("%3a", ":"),
                "kind": source.kind,
                "licence": source.licence,
                "documents_read": count,
                "bytes_read": size,
                "sha256": hashlib.sha256(deb.read_bytes()).hexdigest(),
            }
        )
        print(f"{source.package:32} {count:6} documents {size / 1e6:7.2f} MB", flush=True)
    return documents, rows


def balance(documents: list[Document]) -> list[Document]:
    """Drop code outside the standard library, by hash order, until code is CODE_SHARE of the
    bytes."""
    prose = [d for d in documents if not d.is_code]
    budget = sum(len(d.text.encode()) for d in prose) * CODE_SHARE / (1 - CODE_SHARE)
    kept: list[Document] = []
    code = sorted(
        (d for d in documents if d.is_code), key=lambda d: (d.source.licence != "PSF-2.0", d.digest)
    )
    for document in code:
        if budget <= 0:
            break
        kept.append(document)
        budget -= len(document.text.encode())
    return sorted(prose + kept, key=lambda d: d.digest)


def with_chat(documents: list[Document]) -> Iterator[str]:
    """Yield each document's text and, for some, chat documents made from it."""
    for document in documents:
        yield document.text
        make = from_code if document.is_code else from_prose
        if document.digest[8] < 128:
            yield from make(document.text, document.digest[9])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the text and the fetched packages"
    )
    parser.add_argument(
        "--manifest", type=Path, default=Path(__file__).with_name("corpus_manifest.json")
    )
    args = parser.parse_args()
    debs = args.out / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    documents, rows = collect(debs)
    documents = balance(documents)
    totals: dict[str, object] = {}
    for name in ("train", "heldout"):
        held = [
            d
            for d in documents
            if (int.from_bytes(d.digest[:8]) % 100 < HELD_OUT_PERCENT) == (name == "heldout")
        ]
        texts = list(with_chat(held)) if name == "train" else [d.text for d in held]
        data = "\0".join(texts).encode()
        (args.out / f"{name}.txt.xz").write_bytes(lzma.compress(data, preset=6))
        code = sum(len(d.text.encode()) for d in held if d.is_code)
        totals[name] = {
            "documents": len(held),
            "bytes": len(data),
            "code_bytes": code,
            "chat_documents": len(texts) - len(held),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    used: dict[str, int] = {}
    for document in documents:
        used[document.source.package] = used.get(document.source.package, 0) + len(
            document.text.encode()
        )
    for row in rows:
        row["bytes_used"] = used.get(str(row["package"]), 0)
    args.manifest.write_text(json.dumps({"totals": totals, "sources": rows}, indent=1) + "\n")
    print(json.dumps(totals, indent=1))


if __name__ == "__main__":
    main()
