"""query_norm_rope on a CPU."""

import torch

from isobath.ops.torch_rows import rotate_


def query_norm_rope(q: torch.Tensor, cos_sin: torch.Tensor, *, eps: float) -> torch.Tensor:
    normed = torch.nn.functional.rms_norm(q.float(), (q.shape[-1],), None, eps)
    return rotate_(normed, cos_sin).to(q.dtype)
