"""A model of diffusers in an experiment: which class, with which configuration, from which weights.

What a configuration means for clips and text follows from the class's recipe (vdsgen/spec/recipes), without
torch; the adapters in vdsgen/model/families cut the same configuration into layers.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from vdsgen.spec.base import Name, PathText, Spec, SpecError
from vdsgen.spec.recipes import CLASSES, recipe_for
from vdsgen.spec.recipes.recipe import Recipe

UNET = "UNetSpatioTemporalConditionModel"


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
            sizes = (self.recipe.autoencoder.channels, self.temporal_patch, self.spatial_patch)
        except (TypeError, ValueError, IndexError, KeyError, OverflowError) as error:
            raise SpecError("config", f"is no configuration of {self.class_name}: {error}") from error
        if min(sizes) < 1:
            raise SpecError("config", f"patches and channels of {self.class_name} must be positive: {sizes}")
        return self

    @property
    def recipe(self) -> Recipe:
        """How it is trained."""
        return recipe_for(self.class_name, self.config)

    @property
    def temporal_patch(self) -> int:
        """Latent frames that become one token."""
        return self.recipe.temporal_patch

    @property
    def spatial_patch(self) -> int:
        """Edge, in latent pixels, of what becomes one token; of a U-Net, of its coarsest level's pixels."""
        if self.class_name == UNET:
            return 1 << (len(self.config.get("down_block_types", (None,) * 4)) - 1)
        return self.recipe.spatial_patch

    @property
    def text_tokens(self) -> int:
        """What prompts are padded to; the one token of an image where it takes no text (SVD)."""
        if self.class_name == UNET:
            return 1
        return next((one.max_tokens for one in self.recipe.text if one.gives == "text"), 0)

    @property
    def only_full_text(self) -> bool:
        """Takes no other length of text: Wan with an image splits the two at the published one."""
        return self.config.get("image_dim") is not None or not self.takes_text

    @property
    def takes_text(self) -> bool:
        return bool(self.recipe.text)


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
