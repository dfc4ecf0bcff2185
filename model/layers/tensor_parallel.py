"""Layers split between tensor-parallel ranks, as in Megatron-LM (arXiv 1909.08053, section 3).

Every rank holds the whole hidden state and a share of each block's heads, feed-forward columns and channels.
A column-parallel linear gives each rank its own outputs; a row-parallel one takes them, and its partial sums
are added over ranks. Two conjugate operators make that differentiable: `shared` is the identity forward and
adds gradients over ranks backward (the paper's f), the end of a row-parallel linear adds forward and is the
identity backward (g).

Whatever is not split (norms, modulation, biases that are added after g) is on every rank, and gets the same
gradient there: it is outside of f and g, or goes through `shared` itself, as the norms of queries and keys.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from deepspeed import comm as dist
from torch import Tensor, nn
from torch.nn import functional as F

from vdsgen.errors import VdsgenError
from vdsgen.model.layers.initial import Linear, fill_normal
from vdsgen.model.selective import is_replaying
from vdsgen.spec.architecture import Vdt


class TensorRanks:
    """The ranks that share each block, and this one's place among them.

    Layers are built from `size` and `rank`; they communicate over the process group that `bind` is given,
    which exists only once the engine's grid does.
    """

    def __init__(self, size: int = 1, rank: int = 0) -> None:
        assert 0 <= rank < size, f"tensor rank {rank} of {size}"
        self.size = size
        self.rank = rank
        self._group: Any = None

    def bind(self, group: Any) -> None:
        self._group = group

    def add_up(self, x: Tensor) -> Tensor:
        """The sum of all ranks' `x`, in its place. Collective."""
        dist.all_reduce(x, group=self._group)
        return x

    def gather(self, share: Tensor) -> Tensor:
        """(..., D / size) of each rank -> (..., D). Collective."""
        shares = share.new_empty(self.size, *share.shape)
        dist.all_gather_into_tensor(shares.view(-1), share.view(-1), group=self._group)
        return self.joined(shares)

    @staticmethod
    def joined(shares: Tensor) -> Tensor:
        """(size, ..., D / size) -> (..., D)"""
        return shares.movedim(0, -2).flatten(-2)


ALONE = TensorRanks()


def check_tensor_ranks(model: Vdt, size: int) -> None:
    """Raises VdsgenError unless every rank gets whole heads, and as many columns of the MLP as the others."""
    if model.heads % size:
        raise VdsgenError(
            f"tensor parallel size {size} does not divide the model's {model.heads} attention heads",
            remedy="use a size that divides them: each rank computes whole heads",
        )
    if model.mlp_hidden_size % size:
        raise VdsgenError(
            f"tensor parallel size {size} does not divide mlp_hidden_size ({model.mlp_hidden_size})",
            remedy="use a size that divides it: each rank computes its share of the columns",
        )


class _Shared(torch.autograd.Function):
    """Identity; backward adds the gradients of all ranks, those of several tensors in one message."""

    @staticmethod
    def forward(ctx: Any, ranks: TensorRanks, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.ranks = ranks
        return tuple(x.view_as(x) for x in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if len(gradients) == 1:
            # A matrix product's fresh result: nobody else reads it.
            return None, ctx.ranks.add_up(gradients[0].contiguous())
        flat = ctx.ranks.add_up(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = flat.split([gradient.numel() for gradient in gradients])
        return None, *(part.view_as(old) for part, old in zip(parts, gradients, strict=True))


class _AddedUp(torch.autograd.Function):
    """The sum of all ranks' partial results plus a bias, in their place; backward is the identity. Where
    recomputation gets a product that was kept, the sum is in it."""

    @staticmethod
    def forward(ctx: Any, ranks: TensorRanks, partial: Tensor, bias_D: Tensor) -> Tensor:
        ctx.mark_dirty(partial)
        if not is_replaying():
            ranks.add_up(partial)
        return partial.add_(bias_D)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, Tensor]:  # noqa: ARG004
        return None, gradients[0], gradients[0].flatten(0, -2).sum(0)


class _Share(torch.autograd.Function):
    """(..., D) -> this rank's (..., D / size); backward gathers the gradient from all ranks."""

    @staticmethod
    def forward(ctx: Any, ranks: TensorRanks, x: Tensor) -> Tensor:
        ctx.ranks = ranks
        # A copy, so that what is kept for backward is the share alone.
        return x.chunk(ranks.size, dim=-1)[ranks.rank].contiguous()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, ctx.ranks.gather(gradients[0].contiguous())


def shared(ranks: TensorRanks, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The same tensors, for use in what is split: their gradients are added over ranks."""
    if ranks.size == 1:
        return tensors
    result: tuple[Tensor, ...] = _Shared.apply(ranks, *tensors)  # type: ignore[no-untyped-call]
    return result


def share_of_channels(ranks: TensorRanks, x_D: Tensor) -> Tensor:
    """(..., D) -> this rank's channels (..., D / size)."""
    if ranks.size == 1:
        return x_D
    share: Tensor = _Share.apply(ranks, x_D)  # type: ignore[no-untyped-call]
    return share


@dataclass(frozen=True, slots=True)
class Split:
    """How ranks share a parameter: along `dim`, which is `parts` stretches of equal length (queries, keys and
    values, say) that are each split evenly."""

    dim: int
    parts: int = 1

    def share(self, whole: Tensor, ranks: TensorRanks) -> Tensor:
        """Of the whole parameter, what `ranks` hold here."""
        stretches = torch.unflatten(whole, self.dim, (self.parts, ranks.size, -1))
        return stretches.select(self.dim + 1, ranks.rank).flatten(self.dim, self.dim + 1)

    def whole(self, shares: Sequence[Tensor]) -> Tensor:
        """The parameter, of what each rank holds, in their order."""
        stretches = [torch.unflatten(share, self.dim, (self.parts, -1)) for share in shares]
        return torch.stack(stretches, self.dim + 1).flatten(self.dim, self.dim + 2)

    def whole_shape(self, share: Sequence[int], size: int) -> tuple[int, ...]:
        """Of a parameter of which each of `size` ranks holds a tensor of shape `share`."""
        return (*share[: self.dim], share[self.dim] * size, *share[self.dim + 1 :])


def split_of(parameter: Tensor) -> Split | None:
    """None: every rank holds all of it."""
    return getattr(parameter, "split_over_ranks", None)


def is_split(parameter: Tensor) -> bool:
    """Whether each tensor rank holds another part of this parameter."""
    return bool(getattr(parameter, "model_parallel", False))


def mark_split(parameter: Tensor, split: Split | None = None) -> None:
    """Says that ranks hold different parts, of a parameter also which. DeepSpeed counts unmarked parameters
    once in gradient norms (runtime/utils.py:134)."""
    parameter.model_parallel = True  # type: ignore[attr-defined]
    if split is not None:
        parameter.split_over_ranks = split  # type: ignore[attr-defined]


class ColumnParallelLinear(nn.Linear):
    """This rank's outputs of `Linear(in_features, out_features)`, which are `parts` stretches of equal length
    (queries, keys and values, say) that are each split between ranks. Takes the whole input."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        generator: torch.Generator,
        ranks: TensorRanks,
        parts: int = 1,
    ) -> None:
        super().__init__(in_features, out_features // ranks.size)
        self.ranks = ranks
        with torch.no_grad():
            self.bias.zero_()

        split, std = Split(dim=0, parts=parts), math.sqrt(2 / (in_features + out_features))
        fill_normal(
            self.weight,
            std,
            generator,
            (out_features, in_features),
            lambda whole: split.share(whole, ranks),
        )
        mark_split(self.weight, split)
        mark_split(self.bias, split)

    def reset_parameters(self) -> None:
        """Nothing, as in `Linear`."""

    def forward(self, x: Tensor) -> Tensor:
        (whole,) = shared(self.ranks, x)
        return F.linear(whole, self.weight, self.bias)


class RowParallelLinear(nn.Linear):
    """`Linear(in_features, out_features)` of inputs that are split between ranks; its output is whole."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        generator: torch.Generator,
        ranks: TensorRanks,
        *,
        zero: bool = False,
    ) -> None:
        super().__init__(in_features // ranks.size, out_features)
        self.ranks = ranks
        with torch.no_grad():
            self.bias.zero_()
            if zero:
                self.weight.zero_()
        split = Split(dim=1)
        if not zero:
            std = math.sqrt(2 / (in_features + out_features))
            fill_normal(
                self.weight,
                std,
                generator,
                (out_features, in_features),
                lambda whole: split.share(whole, ranks),
            )
        mark_split(self.weight, split)

    def reset_parameters(self) -> None:
        """Nothing, as in `Linear`."""

    def forward(self, x_share: Tensor) -> Tensor:
        partial = F.linear(x_share, self.weight)
        out: Tensor = _AddedUp.apply(self.ranks, partial, self.bias)  # type: ignore[no-untyped-call]
        return out


def column_linear(
    in_features: int, out_features: int, generator: torch.Generator, ranks: TensorRanks, parts: int = 1
) -> nn.Linear:
    """Column-parallel where there are several ranks."""
    if ranks.size == 1:
        return Linear(in_features, out_features, generator)
    return ColumnParallelLinear(in_features, out_features, generator, ranks, parts)


def row_linear(
    in_features: int,
    out_features: int,
    generator: torch.Generator,
    ranks: TensorRanks,
    *,
    zero: bool = False,
) -> nn.Linear:
    """Row-parallel where there are several ranks."""
    if ranks.size == 1:
        return Linear(in_features, out_features, generator, zero=zero)
    return RowParallelLinear(in_features, out_features, generator, ranks, zero=zero)


class HeadNorm(nn.LayerNorm):
    """Layer norm within each head. All heads have one scale, so ranks add up what theirs say of it."""

    def __init__(self, head_size: int, ranks: TensorRanks, *, bias: bool = True) -> None:
        super().__init__(head_size, bias=bias)
        self.ranks = ranks

    def forward(self, x_K: Tensor) -> Tensor:
        if self.ranks.size == 1:
            return super().forward(x_K)
        learned = [self.weight] if self.bias is None else [self.weight, self.bias]
        weight, *bias = shared(self.ranks, *learned)
        return F.layer_norm(x_K, self.normalized_shape, weight, bias[0] if bias else None, self.eps)
