"""Stable Video Diffusion (diffusers 0.42.1, unet_spatio_temporal_condition.py,
`UNetSpatioTemporalConditionModel`).

Legend: B micro-batch, F frames, C channels, H rows and W columns of a level, E width of the time embedding,
K width of the image embedding.

Layers take and return (hidden_BFCHW, time_BE, image_B1K, *skips): what is still to be joined on the way up,
the last to be joined first at the end. On the way down each layer's output is the next skip; it travels once,
as the hidden state, and the layer after it puts it among the skips. `skips` says how many more there are
behind a layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vdsgen.model.families.family import Cut, Family, at_most


class _Embed(nn.Module):
    """(noised (B, C, F, H, W), timestep, image_embedding, added_time_ids (B, 3)) -> (hidden, time, image)"""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.conv_in = model.conv_in
        self.time_proj, self.time_embedding = model.time_proj, model.time_embedding
        self.add_time_proj, self.add_embedding = model.add_time_proj, model.add_embedding

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        noised, timestep, image, added = inputs
        noised = at_most(noised, self)
        batch, frames = noised.shape[0], noised.shape[2]
        time = self.time_embedding(self.time_proj(timestep).to(noised.dtype))
        time_ids = self.add_time_proj(added.flatten()).view(batch, -1)
        time = time + self.add_embedding(time_ids.to(time.dtype))
        hidden = self.conv_in(noised.transpose(1, 2).flatten(0, 1))
        # Of the image no weight here makes anything: later layers take it as it is.
        return hidden.unflatten(0, (batch, frames)), time, at_most(image, self)


class _Residual(nn.Module):
    """A residual block, and the attention blocks behind it where the level has some."""

    def __init__(self, resnet: nn.Module, attention: nn.Module | None) -> None:
        super().__init__()
        self.resnet, self.attention = resnet, attention

    def run(self, hidden_BFCHW: Tensor, time: Tensor, image: Tensor) -> Tensor:
        batch, frames = hidden_BFCHW.shape[:2]
        # Which frames are single images: none.
        images_only = hidden_BFCHW.new_zeros(batch, frames)
        hidden: Tensor = self.resnet(
            hidden_BFCHW.flatten(0, 1), time.repeat_interleave(frames, dim=0), images_only
        )
        if self.attention is not None:
            context = image.repeat_interleave(frames, dim=0)
            hidden = self.attention(hidden, context, images_only, return_dict=False)[0]
        return hidden.reshape(batch, frames, *hidden.shape[1:])


class _Down(_Residual):
    skips = 1

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, time, image, *skips = inputs
        return self.run(hidden, time, image), time, image, *skips, hidden


class _Up(_Residual):
    skips = -1

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, time, image, *skips, skip = inputs
        joined = torch.cat([hidden, skip], dim=2)
        return self.run(joined, time, image), time, image, *skips


class _Downsample(nn.Module):
    skips = 1

    def __init__(self, sampler: nn.Module) -> None:
        super().__init__()
        self.sampler = sampler

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, time, image, *skips = inputs
        smaller = self.sampler(hidden.flatten(0, 1))
        return smaller.unflatten(0, hidden.shape[:2]), time, image, *skips, hidden


class _Upsample(nn.Module):
    """To the size of what is joined next, which is not twice this one's where halving left a remainder."""

    def __init__(self, sampler: nn.Module) -> None:
        super().__init__()
        self.sampler = sampler

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, time, image, *skips = inputs
        size = skips[-1].shape[-2:]
        twice = [2 * edge for edge in hidden.shape[-2:]]
        larger = self.sampler(hidden.flatten(0, 1), None if list(size) == twice else size)
        return larger.unflatten(0, hidden.shape[:2]), time, image, *skips


class _Middle(nn.Module):
    skips = 1

    def __init__(self, first: nn.Module, attention: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = _Residual(first, attention), _Residual(second, None)

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, time, image, *skips = inputs
        middle = self.second.run(self.first.run(hidden, time, image), time, image)
        return middle, time, image, *skips, hidden


class _Final(nn.Module):
    """(hidden, time, image) -> prediction (B, C, F, H, W) float32."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.conv_norm_out, self.conv_act = model.conv_norm_out, model.conv_act
        self.conv_out = model.conv_out

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        hidden = inputs[0]
        normal = self.conv_act(self.conv_norm_out(hidden.flatten(0, 1)))
        prediction = self.conv_out(normal).unflatten(0, hidden.shape[:2])
        video: Tensor = prediction.transpose(1, 2).float()
        return video


def _cut(model: Any) -> list[Cut]:
    modules: list[tuple[str, nn.Module]] = [("embed", _Embed(model))]
    for level, block in enumerate(model.down_blocks):
        modules += [(f"down{level}", layer) for layer in _layers_of(block, _Down)]
        if block.downsamplers is not None:
            modules.append((f"downsample{level}", _Downsample(block.downsamplers[0])))
    middle = model.mid_block
    modules.append(("middle", _Middle(middle.resnets[0], middle.attentions[0], middle.resnets[1])))
    for place, block in enumerate(model.up_blocks):
        level = len(model.up_blocks) - 1 - place
        modules += [(f"up{level}", layer) for layer in _layers_of(block, _Up)]
        if block.upsamplers is not None:
            modules.append((f"upsample{level}", _Upsample(block.upsamplers[0])))
    modules.append(("final", _Final(model)))
    return _with_kinds(modules)


def _layers_of(block: Any, layer: type[_Residual]) -> list[nn.Module]:
    attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
    pairs = zip(block.resnets, attentions, strict=True)
    return [layer(resnet, attention) for resnet, attention in pairs]


def _with_kinds(modules: list[tuple[str, nn.Module]]) -> list[Cut]:
    """Layers of a level have a letter where their shapes differ: up1a, up1b."""
    shapes: dict[str, list[list[torch.Size]]] = {}
    found = []
    for name, module in modules:
        of_name, own = shapes.setdefault(name, []), [p.shape for p in module.parameters()]
        if own not in of_name:
            of_name.append(own)
        found.append((name, of_name.index(own), module))
    return [
        Cut(name if len(shapes[name]) == 1 else name + "abcdefgh"[place], module)
        for name, place, module in found
    ]


SVD = Family(class_name="UNetSpatioTemporalConditionModel", cut=_cut, depths=(), adapter_prefix="unet")
