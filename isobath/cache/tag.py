"""Tags: what the bytes of a cache mean, so that no reader takes them for something else.

A tag names the FP8 dialect, the geometry of a row, the form of its scales and the model that wrote
it. Every CacheView has one; a pool says which its caches must have and forward() which it reads.
Comparing them costs a few string comparisons a step and happens before any kernel runs. Which
dialects may meet in one op is the op's business: tags are compared cache by cache.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from isobath.cache.layout import RowLayout
from isobath.errors import DialectMismatch, LayoutMismatch
from isobath.numerics.dialect import Dialect


@dataclass(frozen=True, slots=True)
class Tag:
    """dialect: of the FP8 bytes. layout: RowLayout.version, a hash of the geometry. scale: "ue8m0",
    "fp32" or "none". revision: of the model (model/load.py), "" for nobody's.

    Plain rows hold no FP8 and no scale: both are "none".
    """

    dialect: str
    layout: str
    scale: str
    revision: str

    def __str__(self) -> str:
        revision = self.revision or "none"
        return f"{self.dialect}, layout {self.layout}, scale {self.scale}, model {revision}"

    def in_dialect_of(self, other: Tag) -> Tag:
        """This tag for a reader that decodes whatever dialect the cache says."""
        return replace(self, dialect=other.dialect)

    def expect(self, wanted: Tag, *, reader: str) -> None:
        """Raise unless this is the tag that `reader` wants: LayoutMismatch for another geometry,
        scale or model, DialectMismatch for the other dialect."""
        if self == wanted:
            return
        if (self.layout, self.scale) != (wanted.layout, wanted.scale):
            what = f"layout {wanted.layout} with scale {wanted.scale}"
            effect = "rows would be read at another row's bytes"
            do = "allocate the cache from the config and numerics that read it"
        elif self.revision != wanted.revision:
            what = f"a cache of model {wanted.revision or 'none'}"
            effect = "the keys would be another model's, and the answer silently wrong"
            do = "give every model a cache of its own"
        else:
            raise DialectMismatch(
                f"{reader}: expected {wanted.dialect}, got {self.dialect}",
                found=f"a cache tagged {self}",
                effect="every value would be off by a factor of two",
                do="write and read a cache in one dialect",
            )
        raise LayoutMismatch(
            f"{reader}: expected {what}", found=f"a cache tagged {self}", effect=effect, do=do
        )


def tag_of(layout: RowLayout, dialect: Dialect, revision: str) -> Tag:
    """The tag of rows of `layout`, written in `dialect` by model `revision`."""
    if layout.plain:
        return Tag("none", layout.version, "none", revision)
    scale = "ue8m0" if layout.scale_bytes == 1 else "fp32"
    return Tag(dialect.name, layout.version, scale, revision)
