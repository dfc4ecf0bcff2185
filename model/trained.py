"""What an engine is built around: a model's layers, and the loss of what they predict."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from deepspeed.pipe import LayerSpec

from vdsgen.errors import VdsgenError
from vdsgen.model.layers.sequence_parallel import WHOLE, SequenceRanks
from vdsgen.model.layers.tensor_parallel import ALONE, TensorRanks
from vdsgen.model.objective import diffusion_loss, losses_of_samples
from vdsgen.model.pipeline import LossFunction, layer_specs
from vdsgen.spec.architecture import Geometry, Vdt
from vdsgen.spec.dtypes import Dtype
from vdsgen.spec.geometry import TrainedModel
from vdsgen.spec.training import Lora

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Trained(NamedTuple):
    """A model as engines take it."""

    layers: list[LayerSpec]
    loss: LossFunction
    losses_of_samples: LossFunction
    """(B,) float32: of each sample, what `loss` is the mean of."""


def trained(
    model: TrainedModel,
    geometry: Geometry,
    seed: int,
    adapters: Lora | None = None,
    ranks: TensorRanks = ALONE,
    sequence: SequenceRanks = WHOLE,
    dtype: Dtype = "fp32",
    start_from: Path | None = None,
) -> Trained:
    """The layers in the order they run, and the loss that training minimises; with `adapters`, nothing else
    of the model trains. With `start_from` they begin with the weights of that folder. Models of diffusers are
    built in `dtype` at once: a stage of a large one would not fit into host memory twice as wide. Raises
    VdsgenError where model, clips, ranks and folder do not fit each other."""
    if isinstance(model, Vdt):
        assert adapters is None, "refused when the experiment is resolved"
        specs = layer_specs(model, geometry, seed, ranks, sequence)
        if start_from is not None:
            from vdsgen.model.folder import started_from

            specs = started_from(specs, model, start_from, ranks)
        return Trained(specs, diffusion_loss, losses_of_samples)
    if start_from is not None:
        model = model.model_copy(update={"weights": str(start_from)})
    if ranks.size > 1 or sequence.size > 1:
        raise VdsgenError(
            f"{model.class_name} is run as diffusers has it: ranks cannot share its blocks or its clips",
            remedy="set pipeline.tensor_parallel_size and pipeline.sequence_parallel_size to 1",
        )
    from vdsgen.model.families.layer_specs import diffusers_layer_specs
    from vdsgen.model.recipes.loss import recipe_loss, recipe_losses

    return Trained(diffusers_layer_specs(model, seed, adapters, DTYPES[dtype]), recipe_loss, recipe_losses)
