"""The article's 1.5 B case on the UNet that has this size: Stable Video Diffusion's, traced without weights.

    python -m tests.benchmarks.svd_unet --out docs/measured/svd_unet.json

Diffusers' UNetSpatioTemporalConditionModel in half precision, whole, with its defaults, which are the
published model's; bytes that one clip's forward leaves for backward, and parameters. A UNet halves and
doubles its frames' edges on the way, so that its costs are no polynomial of the clip's size: they hold for
the sizes that are traced here, and nowhere else. About a minute.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vdsgen.files import write_atomically
from vdsgen.profile.trace import empty_tensors, traced

FRAMES, EDGES = (14, 16), ((256, 256), (576, 1024))
"""SVD was trained on 14 frames of 576 x 1024; the article speaks of 16 frames of 256 x 256."""
SPATIAL_FACTOR = 8
TEXT_WIDTH = 1024


class Whole(nn.Module):
    """The UNet, taking its inputs as one tuple."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers import UNetSpatioTemporalConditionModel

        self.unet = UNetSpatioTemporalConditionModel()

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """(latents B T C H W, timestep, image embedding B 1 D, time ids B 3) -> the prediction."""
        out: Tensor = self.unet(*inputs, return_dict=False)[0]
        return out


def measured(frames: int, height: int, width: int) -> dict[str, Any]:
    """One clip of this size."""
    dtype = torch.bfloat16
    with empty_tensors():
        default = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            layer = Whole()
        finally:
            torch.set_default_dtype(default)
        layer.to("meta")  # its mix factors are made by a constructor that knows no device
        for parameter in layer.parameters():
            parameter.grad = torch.zeros_like(parameter)
        channels = layer.unet.config.in_channels
        latents = torch.empty(
            1, frames, channels, height // SPATIAL_FACTOR, width // SPATIAL_FACTOR, dtype=dtype
        )
        inputs = (
            latents,
            torch.empty(1, dtype=dtype),
            torch.empty(1, 1, TEXT_WIDTH, dtype=dtype),
            torch.empty(1, 3, dtype=dtype),
        )
        trace = traced(layer, inputs)
        parameters = sum(parameter.numel() for parameter in layer.parameters())
    return {
        "frames": frames,
        "height": height,
        "width": width,
        "parameters": parameters,
        "saved_bytes": trace.saved_bytes + trace.output_bytes,
        "forward_flops": trace.matmul_flops + trace.attention_flops,
    }


def main() -> None:
    """Traces every size, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    found = [measured(frames, *edges) for frames in FRAMES for edges in EDGES]
    write_atomically(out, (json.dumps(found, indent=2) + "\n").encode())
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
