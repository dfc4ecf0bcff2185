"""What a clip is in tokens, for the model that an experiment trains."""

from __future__ import annotations

from vdsgen.spec.architecture import Geometry, Vdt
from vdsgen.spec.data import ClipSize, Data
from vdsgen.spec.diffusers_model import DiffusersModel

TrainedModel = Vdt | DiffusersModel
"""What an experiment's model is once it is resolved."""


def geometries_of(data: Data, model: TrainedModel) -> tuple[Geometry, ...]:
    """`geometry_of` for every size of the clips, in the order of `Data.sizes`."""
    return tuple(geometry_of(data, model, size) for size in data.sizes)


def geometry_of(data: Data, model: TrainedModel, size: ClipSize | None = None) -> Geometry:
    """Tokens in time and space, and text tokens, of one sample of frames x height x width by default.

    Raises ValueError where patches do not divide the latent frame. Patches in time that latent frames do not
    fill are filled up.
    """
    size = size or data.sizes[0]
    _, spatial, temporal = latent_shape(data, model)
    patch = spatial_patch(model)
    frames = size.frames if temporal == 1 else 1 + (size.frames - 1) // temporal
    height, width = size.height // spatial, size.width // spatial
    if height % patch or width % patch:
        raise ValueError(f"patch_size ({patch}) must divide the latent frame ({height} x {width})")
    return Geometry(
        frames=frames if isinstance(model, Vdt) else -(-frames // model.temporal_patch),
        patches=(height // patch) * (width // patch),
        text_tokens=_text_tokens(data, model),
        latent_height=height,
        latent_width=width,
    )


def latent_shape(data: Data, model: TrainedModel) -> tuple[int, int, int]:
    """Channels of a latent frame, its spatial factor, and the temporal one: of the pipeline's autoencoder
    where there is one, else of `data.latents`."""
    codec = model.recipe.autoencoder if isinstance(model, DiffusersModel) and data.pipeline else data.latents
    return codec.channels, codec.spatial_factor, codec.temporal_factor


def spatial_patch(model: TrainedModel) -> int:
    """Edge of what becomes one token, in latent pixels."""
    return model.patch_size if isinstance(model, Vdt) else model.spatial_patch


def _text_tokens(data: Data, model: TrainedModel) -> int:
    if isinstance(model, DiffusersModel):
        return model.text_tokens
    encoder = data.text_encoder
    return encoder.max_tokens if model.condition == "text" and encoder else 0
