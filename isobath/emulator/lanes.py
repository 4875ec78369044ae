"""Moving values between lanes and sub-dwords: DPP, SDWA, swizzles, permutes, masked writes.

Every function takes and gives arrays of one row a wave and 64 lanes (or one column that stands for
all lanes). `active` is the boolean EXEC of each lane, None when all 64 of every wave are on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from isobath.emulator.bits import LANES, Array, i32, i64, u8, u32
from isobath.emulator.faults import UnsupportedInstruction

f32 = np.float32
_ROW, _PLACE = LANES & ~15, LANES & 15


def blend(target: Array, value: Array, keep: Array) -> None:
    """target[lane] = value[lane] where keep is all ones; all uint32. Three passes beat a mask."""
    change = target ^ value
    change &= keep
    target ^= change


def blend_u(target: Array, value: Array, keep: Array) -> None:
    blend(target, value if value.dtype == u32 else value.astype(u32), keep)


def blend_i(target: Array, value: Array, keep: Array) -> None:
    blend(target, (value if value.dtype == i32 else value.astype(i32)).view(u32), keep)


def blend_f(target: Array, value: Array, keep: Array) -> None:
    blend(target, (value if value.dtype == f32 else value.astype(f32)).view(u32), keep)


def word_mask(lanes: Array) -> Array:
    """uint32 of ones where a lane is on."""
    return lanes.view(u8).astype(u32) * u32(0xFFFFFFFF)


def all_lanes(mask: Array) -> Array:
    """A condition on every lane, also where both operands were scalar."""
    return np.broadcast_to(mask, (mask.shape[0], 64)) if mask.shape[1] == 1 else mask


def split64(value: Array) -> tuple[Array, Array]:
    """Low and high words of a 64-bit array."""
    words = np.ascontiguousarray(value).view(u32)
    return words[..., 0::2], words[..., 1::2]


@dataclass(frozen=True, slots=True)
class DppMap:
    """source: lane read by each lane; valid: whether it exists; enabled: row and bank masks."""

    source: Array
    valid: Array
    enabled: Array
    zero_fill: bool

    @property
    def writes_all(self) -> bool:
        return bool(self.enabled.all()) and (self.zero_fill or bool(self.valid.all()))


def dpp_map(modifiers: dict[str, str], text: str) -> DppMap:
    """The lane map of an instruction's DPP modifiers, which are taken out of `modifiers`."""
    row_mask = int(modifiers.pop("row_mask", "0xf"), 0)
    bank_mask = int(modifiers.pop("bank_mask", "0xf"), 0)
    zero_fill = modifiers.pop("bound_ctrl", None) is not None
    enabled = (row_mask >> (LANES >> 4)) & (bank_mask >> ((LANES >> 2) & 3)) & 1
    controls = [key for key in modifiers if key in _DPP_KEYS]
    if len(controls) != 1:
        raise UnsupportedInstruction("dpp", text, f"{len(controls)} lane controls")
    key = controls[0]
    source, valid = _dpp_source(key, modifiers.pop(key), text)
    return DppMap(np.clip(source, 0, 63), valid[None], enabled.astype(bool)[None], zero_fill)


_DPP_KEYS_NAMES = (
    "quad_perm row_shl row_shr row_ror row_mirror row_half_mirror row_bcast row_newbcast "
    "wave_shr wave_shl wave_ror wave_rol"
)
_DPP_KEYS = frozenset(_DPP_KEYS_NAMES.split())


def _dpp_source(key: str, value: str, text: str) -> tuple[Array, Array]:
    everywhere = np.ones(64, bool)
    if key == "quad_perm":
        order = np.array([int(x) for x in value.strip("[]").split(",")])
        return (LANES & ~3) + order[LANES & 3], everywhere
    if key == "row_mirror":
        return _ROW + 15 - _PLACE, everywhere
    if key == "row_half_mirror":
        return (LANES & ~7) + 7 - (LANES & 7), everywhere
    n = int(value)
    simple = {
        "row_shl": (_ROW + _PLACE + n, _PLACE + n < 16),
        "row_shr": (_ROW + _PLACE - n, _PLACE - n >= 0),
        "row_ror": (_ROW + ((_PLACE - n) & 15), everywhere),
        "row_newbcast": (_ROW + n, everywhere),
        "wave_shr": (LANES - 1, LANES > 0),
        "wave_shl": (LANES + 1, LANES < 63),
        "wave_ror": ((LANES - 1) & 63, everywhere),
        "wave_rol": ((LANES + 1) & 63, everywhere),
    }
    if key in simple:
        return simple[key]
    if n == 15:
        return _ROW - 1, _ROW > 0
    if n == 31:
        return np.full(64, 31), LANES >= 32
    raise UnsupportedInstruction("dpp", text, f"{key}:{value}")


def dpp(word: Array, lanes: DppMap, active: Array | None) -> tuple[Array, Array]:
    """(operand of each lane, lanes whose result is written). A source lane that is off is invalid:
    its reader gets zero with bound_ctrl and writes nothing without it."""
    valid = lanes.valid if active is None else lanes.valid & active[:, lanes.source]
    moved = every_lane(word)[:, lanes.source]
    if lanes.zero_fill:
        return np.where(valid, moved, u32(0)), lanes.enabled
    return moved, lanes.enabled & valid


def every_lane(word: Array) -> Array:
    """A scalar operand spread over its 64 lanes."""
    return np.broadcast_to(word, (word.shape[0], 64)) if word.shape[1] == 1 else word


def sub_dword(word: Array, place: str, signed: bool) -> Array:
    """SDWA source selection of a uint32 array: DWORD, WORD_n or BYTE_n, zero- or sign-extended."""
    if place == "DWORD":
        return word
    bits = 8 if place.startswith("BYTE") else 16
    low = int(place[-1]) * bits
    if signed:
        return ((word.view(i32) << (32 - bits - low)) >> (32 - bits)).view(u32)
    return (word >> low) & ((1 << bits) - 1)


def into_sub_dword(old: Array, value: Array, place: str, unused: str) -> Array:
    """SDWA destination: `value` at a place, the rest zero, sign or the old bits."""
    if place == "DWORD":
        return value
    bits = 8 if place.startswith("BYTE") else 16
    low = int(place[-1]) * bits
    mask = (1 << bits) - 1
    field = (value & mask) << low
    if unused == "UNUSED_PRESERVE":
        return (old & (0xFFFFFFFF ^ (mask << low))) | field
    if unused == "UNUSED_SEXT":
        return (field.view(i32) << (32 - bits - low) >> (32 - bits - low)).view(u32)
    return field


def first_lane(word: Array, active: Array | None) -> Array:
    """v_readfirstlane: of the lowest lane that is on; lane 0 when none is."""
    if active is None or word.shape[1] == 1:
        return word[:, :1]
    return word[np.arange(word.shape[0]), active.argmax(1)][:, None]


def read_lane(word: Array, lane: Array) -> Array:
    """v_readlane: column `lane & 63` of each wave."""
    rows = np.arange(word.shape[0])
    at = np.broadcast_to((lane & 63)[:, 0], rows.shape)
    return every_lane(word)[rows, at][:, None]


def write_lane(target: Array, value: Array, lane: Array, waves: Array | None) -> None:
    """v_writelane: EXEC does not matter. waves: bool [W, 1], the waves that execute."""
    rows = np.arange(target.shape[0])
    at = np.broadcast_to((lane & 63)[:, 0], rows.shape)
    values = np.broadcast_to(value[:, 0], rows.shape)
    if waves is not None:
        rows, at, values = rows[waves[:, 0]], at[waves[:, 0]], values[waves[:, 0]]
    target[rows, at] = values


def pull(address: Array, word: Array, offset: int, active: Array | None) -> Array:
    """ds_bpermute: each lane reads lane (address + offset) / 4 mod 64, 0 where that is off."""
    at = (((address + u32(offset)) >> 2) & 63).astype(i64)
    word = every_lane(word)
    at = np.broadcast_to(at, word.shape)
    out = np.take_along_axis(word, at, 1)
    if active is not None:
        out = np.where(np.take_along_axis(active, at, 1), out, u32(0))
    return out


def push(address: Array, word: Array, offset: int, active: Array | None) -> Array:
    """ds_permute: each active lane sends to lane (address + offset) / 4 mod 64; last one wins."""
    word = every_lane(word)
    at = np.broadcast_to(((address + u32(offset)) >> 2) & 63, word.shape)
    rows = np.broadcast_to(np.arange(word.shape[0])[:, None], word.shape)
    out = np.zeros(word.shape, u32)
    lanes = slice(None) if active is None else active
    out[rows[lanes], at[lanes]] = word[lanes]
    return out


def swizzle_map(text: str) -> Array:
    """Source lane of each lane for ds_swizzle's offset, in words or as a number."""
    match = re.match(r"swizzle\((\w+),(.*)\)", text)
    if not match:
        return _swizzle_number(int(text, 0))
    kind, rest = match[1], match[2].replace(" ", "")
    if kind == "QUAD_PERM":
        order = np.array([int(x, 0) for x in rest.split(",")])
        return (LANES & ~3) + order[LANES & 3]
    if kind == "SWAP":
        return LANES ^ int(rest)
    if kind == "REVERSE":
        n = int(rest)
        return (LANES & ~(n - 1)) + n - 1 - (LANES & (n - 1))
    if kind == "BROADCAST":
        size, lane = (int(x) for x in rest.split(","))
        return (LANES & ~(size - 1)) + lane
    if kind == "BITMASK_PERM":
        source = LANES.copy()
        for bit, action in zip((4, 3, 2, 1, 0), rest.strip('"'), strict=True):
            on = 1 << bit
            source = {"0": source & ~on, "1": source | on, "p": source, "i": source ^ on}[action]
        return source
    raise UnsupportedInstruction("ds_swizzle_b32", text, kind)


def _swizzle_number(offset: int) -> Array:
    if offset >= 0xC000:
        raise UnsupportedInstruction("ds_swizzle_b32", f"offset:{offset:#x}", "rotate or FFT")
    if offset & 0x8000:
        order = np.array([offset >> (2 * k) & 3 for k in range(4)])
        return (LANES & ~3) + order[LANES & 3]
    keep, turn, flip = offset & 31, offset >> 5 & 31, offset >> 10 & 31
    return (LANES & 32) | ((((LANES & 31) & keep) | turn) ^ flip)


def swizzle(word: Array, source: Array, active: Array | None) -> Array:
    """ds_swizzle: a source lane that is off gives 0."""
    out = every_lane(word)[:, source]
    return out if active is None else np.where(active[:, source], out, u32(0))
