"""Samples split between sequence-parallel ranks: each holds some rows of patches of every frame.

All but attention within frames works on patches one by one, or along the frames of one patch, and needs
nothing of other ranks. For attention within frames the ranks exchange: each gives up its patches of most
frames and gets all patches of its own frames, and back afterwards. That is dynamic sequence parallelism (DSP,
arXiv 2403.10266, section 3): two all-to-alls of the hidden state's share a block and pass, where
DeepSpeed-Ulysses (arXiv 2309.14509, section 3.1), which splits heads, sends queries, keys, values and outputs
of both attentions.

Weights are whole on every rank. To the engine these ranks are data-parallel ones: each has the mean loss of
its patches, and the mean of their gradients is the gradient of the mean over all patches.

Legend: B micro-batch, T latent frames, S patches a frame (row by row), D hidden size; E this rank's frames
and P its patches of a frame; N ranks.
"""

from __future__ import annotations

from typing import Any

import torch
from deepspeed import comm as dist
from torch import Tensor

from vdsgen.errors import VdsgenError
from vdsgen.spec.architecture import Geometry, Vdt

HEIGHT = 3
"""The axis of a clip's latents (B, C, T, H, W) that ranks share."""


class SequenceRanks:
    """The ranks that share each sample, and this one's place among them.

    Layers are built from `size` and `rank`; they communicate over the process group that `bind` is given.
    """

    def __init__(self, size: int = 1, rank: int = 0) -> None:
        assert 0 <= rank < size, f"sequence rank {rank} of {size}"
        self.size = size
        self.rank = rank
        self._group: Any = None

    def bind(self, group: Any) -> None:
        self._group = group

    def exchange(self, parts: Tensor) -> Tensor:
        """(N, ...), contiguous: part n goes to rank n, and what comes from rank n takes its place.
        Collective."""
        received = torch.empty_like(parts)
        dist.all_to_all_single(received, parts, group=self._group)
        return received

    def share(self, clips: Tensor) -> Tensor:
        """This rank's rows of clips (B, C, T, H, W), on their device."""
        return clips if self.size == 1 else clips.chunk(self.size, dim=HEIGHT)[self.rank].contiguous()

    def whole(self, share: Tensor) -> Tensor:
        """All ranks' rows, joined. Collective."""
        if self.size == 1:
            return share
        shares = share.new_empty(self.size, *share.shape)
        dist.all_gather_into_tensor(shares.view(-1), share.contiguous().view(-1), group=self._group)
        return torch.cat(shares.unbind(0), dim=HEIGHT)


WHOLE = SequenceRanks()


def check_sequence_ranks(model: Vdt, geometry: Geometry, size: int) -> None:
    """Raises VdsgenError unless every rank gets as many rows of patches, and as many frames, as the
    others."""
    rows = geometry.latent_height // model.patch_size
    for what, count in (("rows of patches", rows), ("latent frames", geometry.frames)):
        if count % size:
            raise VdsgenError(
                f"sequence parallel size {size} does not divide the clips' {count} {what}",
                remedy="use a size that divides both, or clips of another size",
            )


class _FramesGathered(torch.autograd.Function):
    """(B, T, P, D) -> (B, E, S, D)"""

    @staticmethod
    def forward(ctx: Any, ranks: SequenceRanks, x_BTPD: Tensor) -> Tensor:
        ctx.ranks = ranks
        return _frames_gathered(ranks, x_BTPD)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, _patches_gathered(ctx.ranks, gradients[0])


class _PatchesGathered(torch.autograd.Function):
    """(B, E, S, D) -> (B, T, P, D)"""

    @staticmethod
    def forward(ctx: Any, ranks: SequenceRanks, x_BESD: Tensor) -> Tensor:
        ctx.ranks = ranks
        return _patches_gathered(ranks, x_BESD)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, _frames_gathered(ctx.ranks, gradients[0])


def _frames_gathered(ranks: SequenceRanks, x_BTPD: Tensor) -> Tensor:
    batch, frames, patches, width = x_BTPD.shape
    by_frames_BNEPD = x_BTPD.reshape(batch, ranks.size, frames // ranks.size, patches, width)
    by_rows_NBEPD = ranks.exchange(by_frames_BNEPD.movedim(1, 0).contiguous())
    return by_rows_NBEPD.permute(1, 2, 0, 3, 4).flatten(2, 3)


def _patches_gathered(ranks: SequenceRanks, x_BESD: Tensor) -> Tensor:
    batch, frames, patches, width = x_BESD.shape
    by_rows_BENPD = x_BESD.reshape(batch, frames, ranks.size, patches // ranks.size, width)
    by_frames_NBEPD = ranks.exchange(by_rows_BENPD.permute(2, 0, 1, 3, 4).contiguous())
    return by_frames_NBEPD.movedim(0, 1).flatten(1, 2)


def whole_frames(ranks: SequenceRanks, x_BTPD: Tensor) -> Tensor:
    """All frames of this rank's patches -> all patches of its frames, (B, E, S, D)."""
    if ranks.size == 1:
        return x_BTPD
    frames: Tensor = _FramesGathered.apply(ranks, x_BTPD)  # type: ignore[no-untyped-call]
    return frames


def own_patches(ranks: SequenceRanks, x_BESD: Tensor) -> Tensor:
    """All patches of this rank's frames -> all frames of its patches, (B, T, P, D)."""
    if ranks.size == 1:
        return x_BESD
    patches: Tensor = _PatchesGathered.apply(ranks, x_BESD)  # type: ignore[no-untyped-call]
    return patches
