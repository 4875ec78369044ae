"""latent_insert in plain terms: its parts' references on the two halves of a row."""

import torch

from isobath.cache.view import CacheView
from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.quantize_act.reference import quantize_act
from isobath.ops.rms_norm.reference import rms_norm
from isobath.ops.window_insert.reference import window_insert


def latent_insert(
    qa_kv: torch.Tensor,
    q_norm: torch.Tensor,
    kv_norm: torch.Tensor,
    cos_sin: torch.Tensor,
    cache: CacheView,
    slots: torch.Tensor,
    *,
    dialect: Dialect | None,
    eps: float,
) -> Fp8Tensor | torch.Tensor:
    low, kv = qa_kv.split([len(q_norm), len(kv_norm)], 1)
    window_insert(kv, kv_norm, cos_sin, cache, slots, eps=eps)
    latent = rms_norm(low, q_norm, eps=eps)
    return quantize_act(latent, dialect) if dialect else latent
