"""A model of diffusers in an experiment: which class, with which configuration, from which weights.

What a class's configuration means for clips (patches, channels, widths) stands here once, without torch:
plans follow from it, and the adapters in vdsgen/model/families cut the same configuration into layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from vdsgen.spec.base import Name, PathText, Spec, SpecError

Config = Mapping[str, Any]


class ClipShape(NamedTuple):
    """How a class reads its configuration, as a function of it each."""

    latent_channels: Callable[[Config], int]
    """What the autoencoder gives, and what the prediction is of."""
    temporal_patch: Callable[[Config], int]
    """Latent frames that become one token."""
    spatial_patch: Callable[[Config], int]
    """Edge, in latent pixels, of what becomes one token; of a U-Net, of one pixel of its coarsest level."""
    text_width: Callable[[Config], int]
    """Of the text encoder's output; 0 where the class takes no text."""
    text_tokens: int
    """What the published pipeline pads prompts to."""


def _key(name: str, default: int | None = None) -> Callable[[Config], int]:
    def read(config: Config) -> int:
        value = config.get(name, default)
        return int(default if value is None and default is not None else value)

    return read


def _constant(value: int) -> Callable[[Config], int]:
    return lambda _: value


CLASSES: dict[str, ClipShape] = {
    "WanTransformer3DModel": ClipShape(
        latent_channels=_key("out_channels", 16),
        temporal_patch=lambda config: int(config.get("patch_size", (1, 2, 2))[0]),
        spatial_patch=lambda config: int(config.get("patch_size", (1, 2, 2))[1]),
        text_width=_key("text_dim", 4096),
        text_tokens=512,
    ),
    "CogVideoXTransformer3DModel": ClipShape(
        latent_channels=_key("out_channels", 16),
        temporal_patch=_key("patch_size_t", 1),
        spatial_patch=_key("patch_size", 2),
        text_width=_key("text_embed_dim", 4096),
        text_tokens=226,
    ),
    "LTXVideoTransformer3DModel": ClipShape(
        latent_channels=_key("out_channels", 128),
        temporal_patch=_key("patch_size_t", 1),
        spatial_patch=_key("patch_size", 1),
        text_width=_key("caption_channels", 4096),
        text_tokens=128,
    ),
    "HunyuanVideoTransformer3DModel": ClipShape(
        latent_channels=_key("out_channels", 16),
        temporal_patch=_key("patch_size_t", 1),
        spatial_patch=_key("patch_size", 2),
        text_width=_key("text_embed_dim", 4096),
        text_tokens=256,
    ),
    "MochiTransformer3DModel": ClipShape(
        latent_channels=_key("in_channels", 12),
        temporal_patch=_constant(1),
        spatial_patch=_key("patch_size", 2),
        text_width=_key("text_embed_dim", 4096),
        text_tokens=256,
    ),
    "LatteTransformer3DModel": ClipShape(
        latent_channels=_key("in_channels", 4),
        temporal_patch=_constant(1),
        spatial_patch=_key("patch_size", 2),
        text_width=_key("caption_channels", 4096),
        text_tokens=120,
    ),
    "UNetSpatioTemporalConditionModel": ClipShape(
        latent_channels=_key("out_channels", 4),
        temporal_patch=_constant(1),
        spatial_patch=lambda config: 2 ** (len(config.get("down_block_types", (0,) * 4)) - 1),
        text_width=_constant(0),
        text_tokens=0,
    ),
}


class DiffusersModel(Spec):
    """A diffusers class with its configuration; a catalogue name or a local folder is written out as this."""

    family: Literal["diffusers"]
    name: Name
    """What plans call it; no part of the architecture."""
    class_name: str
    """In diffusers."""
    config: dict[str, Any]
    """What the class is made with."""
    weights: PathText | None = None
    """Local folder with diffusers' safetensors of this class; None: random weights from training.seed."""

    @model_validator(mode="after")
    def _class_is_known(self) -> Self:
        if self.class_name not in CLASSES:
            raise SpecError(
                "class_name",
                f"{self.class_name} is no class that vdsgen can cut into pipeline layers",
                remedy=f"there are {', '.join(CLASSES)}",
            )
        try:
            sizes = (self.latent_channels, self.temporal_patch, self.spatial_patch)
        except (TypeError, ValueError, IndexError) as error:
            raise SpecError("config", f"is no configuration of {self.class_name}: {error}") from error
        if min(sizes) < 1:
            raise SpecError("config", f"patches and channels of {self.class_name} must be positive: {sizes}")
        return self

    @property
    def shape(self) -> ClipShape:
        return CLASSES[self.class_name]

    @property
    def latent_channels(self) -> int:
        return self.shape.latent_channels(self.config)

    @property
    def temporal_patch(self) -> int:
        return self.shape.temporal_patch(self.config)

    @property
    def spatial_patch(self) -> int:
        return self.shape.spatial_patch(self.config)

    @property
    def text_width(self) -> int:
        return self.shape.text_width(self.config)

    @property
    def only_full_text(self) -> bool:
        """Takes no other length of text: Wan with an image splits the two at the published one."""
        return self.config.get("image_dim") is not None

    @property
    def takes_text(self) -> bool:
        return self.text_width > 0


class DiffusersSource(Spec):
    """How experiments name one: by the catalogue or by a local folder."""

    diffusers: PathText
    """A catalogue name; or a folder of a model (or of a whole pipeline) or its config.json."""
    weights: PathText | None = None
    """Local folder with safetensors; None: those of the folder in `diffusers`, or random ones."""
    name: Name | None = None
    """What plans call it; None: the catalogue's name or the folder's."""
    changes: dict[str, Any] = Field(default_factory=dict)
    """Keys of the configuration that are to be different: fewer layers for a trial."""
