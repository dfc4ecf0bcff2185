"""Weights of tensor-parallel ranks, put together: the layers themselves say how they are split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from vdsgen.errors import VdsgenError
from vdsgen.model.export.stored import Stored, Weights
from vdsgen.model.layers.tensor_parallel import Split, TensorRanks, split_of
from vdsgen.model.pipeline import layer_specs
from vdsgen.spec.architecture import Geometry, Vdt


def splits_of(model: Vdt, geometry: Geometry, size: int) -> dict[str, Split]:
    """How `size` ranks share each parameter that they share, by the training module's names."""
    found: dict[str, Split] = {}
    with torch.device("meta"):  # nothing is stored or drawn
        for index, spec in enumerate(layer_specs(model, geometry, 0, TensorRanks(size))):
            for name, parameter in spec.build().named_parameters():
                split = split_of(parameter)
                if split is not None:
                    found[f"{index}.{name}"] = split
    return found


def joined(of_ranks: Sequence[Weights], splits: Mapping[str, Split]) -> dict[str, Stored]:
    """`of_ranks` has each rank's tensors. Those that are not split are the same on every rank. Raises
    VdsgenError where ranks hold others than the first."""
    first = of_ranks[0]
    if len(of_ranks) == 1:
        return dict(first)
    for rank, weights in enumerate(of_ranks):
        other = sorted(weights.keys() ^ first.keys())
        if other:
            raise VdsgenError(f"the checkpoint's tensor rank {rank} and rank 0 do not both hold {other[0]}")
    return {
        name: one if name not in splits else _whole(splits[name], [weights[name] for weights in of_ranks])
        for name, one in first.items()
    }


def _whole(split: Split, shares: list[Stored]) -> Stored:
    shape = split.whole_shape(shares[0].shape, len(shares))
    return Stored(shape, shares[0].dtype, lambda: split.whole([share.read() for share in shares]))
