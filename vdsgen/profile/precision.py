"""CUDA's bf16 autocast on tensors without contents, which have no autocast of their own.

The lists are those of PyTorch's aten/src/ATen/autocast_mode.h, as far as Python's functions go by the same
names; `accelerate` and Lightning wrap the model's forward in this when they train in "bf16 mixed".
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from vdsgen.profile.ledger import key_of

LOWER_NAMES = (
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d prelu addmm addmv addr matmul "
    "einsum mm mv linear addbmm baddbmm bmm scaled_dot_product_attention __matmul__ __rmatmul__"
)
FP32_NAMES = (
    "acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow __pow__ softplus "
    "layer_norm rms_norm group_norm cosine_similarity l1_loss smooth_l1_loss huber_loss mse_loss dist cdist "
    "renorm logsumexp interpolate prod softmax log_softmax cumprod cumsum sum"
)


def _functions(names: str) -> frozenset[Any]:
    places = (F, torch, Tensor)
    return frozenset(
        getattr(place, name) for name in names.split() for place in places if hasattr(place, name)
    )


_LOWER, _FP32 = _functions(LOWER_NAMES), _functions(FP32_NAMES)


class CudaAutocast(TorchFunctionMode):
    """Casts arguments as autocast does, and casts each fp32 weight once until the mode is left."""

    def __init__(self) -> None:
        super().__init__()
        self._weights: dict[int, Tensor] = {}

    def __exit__(self, *arguments: Any) -> None:
        self._weights.clear()
        super().__exit__(*arguments)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        target = torch.bfloat16 if func in _LOWER else torch.float32 if func in _FP32 else None
        if target is None:
            return func(*args, **(kwargs or {}))
        cast_args = [self._cast(x, target) for x in args]
        cast_kwargs = {name: self._cast(x, target) for name, x in (kwargs or {}).items()}
        return func(*cast_args, **cast_kwargs)

    def _cast(self, value: Any, target: torch.dtype) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(self._cast(x, target) for x in value)
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype == target:
            return value
        if not (target == torch.bfloat16 and value.is_leaf and value.requires_grad):
            return value.to(target)
        key = key_of(value)
        if key not in self._weights:
            self._weights[key] = value.to(target)
        return self._weights[key]
