"""What a model family's encoders can do: the one thing the cache asks of a family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch

Part = Literal["clip", "text"]
"""What an entry of the cache is of: a window of a clip, or a caption."""
Tensors = dict[str, torch.Tensor]
"""By name, on the CPU. Names are the family's own; those of clips and of captions differ."""


class Encoders(Protocol):
    """Makes tensors of clips and of captions, the same ones each time, each clip and caption by itself.

    Weights are loaded at the first call that needs them: whoever encodes captions alone never holds an
    autoencoder. Normalising latents by a family's constants is the training recipe's part, or done here; but
    what is drawn at random for each sample (noise, dropped conditions) is not for the cache.
    """

    def fingerprint(self, part: Part) -> str:
        """Changes whenever the tensors of this part may: with weights, settings and code. Loads no weights.
        Empty: the family has none of this part."""
        ...

    def encode_clip(self, clip: torch.Tensor) -> Tensors:
        """uint8 (3, T, H, W) RGB -> tensors such as `latents` (C, T', H', W')."""
        ...

    def encode_text(self, caption: str) -> Tensors:
        """Tensors such as `text` (L, D); the empty caption stands for no condition."""
        ...


MakeEncoders = Callable[[str], Encoders]
"""From a device's name to encoders there. Can be pickled: it is called in each process that encodes."""
