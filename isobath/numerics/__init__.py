"""What a number means: FP8 dialects, UE8M0 scales, MXFP4, exact conversion and comparison."""

from isobath.numerics.dialect import DIALECTS, FNUZ, OCP, Dialect, decode_table, dialect_of
from isobath.numerics.fp8 import (
    ACTIVATION_BLOCK,
    WEIGHT_BLOCK,
    Fp8Tensor,
    dequantize,
    quantize,
)
from isobath.numerics.mxfp4 import Mxfp4Tensor
from isobath.numerics.transcode import relabel, transcode

__all__ = [
    "ACTIVATION_BLOCK",
    "DIALECTS",
    "FNUZ",
    "OCP",
    "WEIGHT_BLOCK",
    "Dialect",
    "Fp8Tensor",
    "Mxfp4Tensor",
    "decode_table",
    "dequantize",
    "dialect_of",
    "quantize",
    "relabel",
    "transcode",
]
