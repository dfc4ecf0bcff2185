"""DeepSpeed's engine for a config: this rank's part of the model, its groups of ranks and its optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import deepspeed
import torch
from deepspeed import comm as dist
from deepspeed.runtime.pipe.topology import PipelineParallelGrid, PipeModelDataParallelTopology

from vdsgen.errors import VdsgenError
from vdsgen.model import compression, corrections
from vdsgen.model.adamw_8bit import AdamW8bit
from vdsgen.model.distributed import init_distributed
from vdsgen.model.engine import TrainingEngine
from vdsgen.model.layers.sequence_parallel import SequenceRanks
from vdsgen.model.layers.tensor_parallel import TensorRanks
from vdsgen.model.pipeline import (
    PlannedPipelineModule,
    SequentialModel,
)
from vdsgen.model.stage_settings import stage_settings
from vdsgen.model.trained import trained
from vdsgen.spec.architecture import Geometry, Vdt
from vdsgen.spec.compression import compression_of, refusal
from vdsgen.spec.geometry import TrainedModel
from vdsgen.spec.run import dtype_of
from vdsgen.spec.trainer_section import SECTION, STATE_DTYPE, ema_of, quantises_moments
from vdsgen.spec.training import Lora


def build_engine(
    ds_config: Mapping[str, Any],
    model: TrainedModel,
    geometry: Geometry,
    seed: int,
    adapters: Lora | None = None,
    start_from: Path | None = None,
) -> TrainingEngine:
    """Builds this rank's part of the model and DeepSpeed's engine around it; with `adapters`, nothing else of
    the model trains. `start_from` is a folder with the weights to begin with.

    Reads `pipeline.stages`, `pipeline.partition`, `pipeline.activation_checkpoint_interval`, where stages
    have intervals of their own `pipeline.stage_checkpoint_intervals`, `pipeline.plain_layers`,
    `pipeline.selective_layers`, `pipeline.compress_activations`, `pipeline.offload_activations`,
    `pipeline.tensor_parallel_size`, `pipeline.sequence_parallel_size` and the section `vdsgen`; everything
    else in `ds_config` is DeepSpeed's own. Collective. Raises VdsgenError where the config contradicts the
    model or the number of ranks.
    """
    section = ds_config.get("pipeline", {})
    stages, tensor = int(section.get("stages", 1)), int(section.get("tensor_parallel_size", 1))
    sharing = int(section.get("sequence_parallel_size", 1))
    zero = ds_config.get("zero_optimization", {})
    compressed = compression_of(ds_config)
    compression.check_reduces_once(
        refusal(compressed, zero.get("stage", 0), optimizer_is_offloaded=_is_offloaded(zero))
    )
    if isinstance(model, Vdt):  # before ranks wait for one another; of other models layers are counted below
        stage_settings(section, model.depth + 2)
    init_distributed()
    topology = _topology(stages, tensor, sharing)
    ranks = TensorRanks(tensor, dist.get_rank() % tensor)
    sequence = SequenceRanks(sharing, dist.get_rank() // tensor % sharing)
    specs, loss, losses_of_samples = trained(
        model, geometry, seed, adapters, ranks, sequence, dtype_of(ds_config), start_from
    )
    settings = stage_settings(section, len(specs))
    grid = None
    config = dict(ds_config)
    if sharing > 1:
        # Each of a sample's ranks counts as a data-parallel rank of the engine's, with a sample of its own.
        config["train_batch_size"] = sharing * ds_config["train_batch_size"]
    _bind_sequence(sequence, tensor)
    if stages > 1:
        planned = PlannedPipelineModule(
            specs,
            settings.partition,
            settings.intervals,
            loss,
            topology,
            settings.offload,
            settings.plain,
            settings.selective,
            settings.codec,
        )
        ranks.bind(planned.mpu().get_slice_parallel_group())
        # The engine puts its config's interval in the module's place (runtime/pipe/engine.py:214).
        own = {"activation_checkpoint_interval": planned.activation_checkpoint_interval}
        config["pipeline"] = {**section, **own}
        module: torch.nn.Module = planned
    else:
        if topology is not None:
            grid = PipelineParallelGrid(topology)
            ranks.bind(grid.get_slice_parallel_group())
        stage_3 = zero.get("stage", 0) == 3
        if stage_3:
            corrections.save_no_inputs_of_frozen_weights()
        with deepspeed.zero.Init(
            data_parallel_group=None if grid is None else grid.get_data_parallel_group(),
            config_dict_or_path=config,
            enabled=stage_3,
            mpu=grid,
        ):
            module = SequentialModel(
                specs,
                settings.intervals[0],
                loss,
                settings.offload,
                settings.plain[0],
                settings.selective[0],
                settings.codec,
            )
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    engine, *_ = deepspeed.initialize(
        model=module,
        model_parameters=trainable,
        config=config,
        mpu=grid,
        optimizer=own_optimizer(ds_config) if quantises_moments(ds_config) else None,
    )
    return TrainingEngine(engine, compressed, sequence, ema_of(ds_config), losses_of_samples)


def own_optimizer(ds_config: Mapping[str, Any]) -> Callable[[Any], torch.optim.Optimizer]:
    """AdamW with moments in int8, with the parameters of the config's own `optimizer`."""
    zero = ds_config.get("zero_optimization", {})
    if _is_offloaded(zero):
        raise VdsgenError(
            f"{SECTION}.{STATE_DTYPE} int8 is not for an offloaded optimizer",
            remedy="set zero_optimization.offload_optimizer.device to none, or leave it out",
        )
    params = ds_config["optimizer"]["params"]
    chosen = {key: params[key] for key in ("lr", "betas", "eps", "weight_decay") if key in params}
    return lambda parameters: AdamW8bit(parameters, **chosen)


def _topology(stages: int, tensor: int, sequence: int) -> PipeModelDataParallelTopology | None:
    """Stages x data x tensor ranks, neighbours sharing blocks; None without tensor parallelism.

    DeepSpeed's axes are (pipe, data, model), the last innermost (runtime/pipe/topology.py:243); ranks that
    share samples are neighbours on its data axis.
    """
    world = dist.get_world_size()
    if world % (stages * tensor * sequence):
        needed = f"pipeline.stages ({stages})"
        for name, size in (("tensor", tensor), ("sequence", sequence)):
            needed += f" x pipeline.{name}_parallel_size ({size})" if size > 1 else ""
        raise VdsgenError(f"{needed} must divide the number of ranks ({world})")
    if tensor == 1:
        return None
    return PipeModelDataParallelTopology(num_pp=stages, num_mp=tensor, num_dp=world // stages // tensor)


def _bind_sequence(sequence: SequenceRanks, tensor: int) -> None:
    """Makes every group of ranks that share samples: each has to be made on all ranks."""
    if sequence.size == 1:
        return
    together = sequence.size * tensor
    for start in range(0, dist.get_world_size(), together):
        for first in range(start, start + tensor):
            members = list(range(first, start + together, tensor))
            group = dist.new_group(members)
            if dist.get_rank() in members:
                sequence.bind(group)


def _is_offloaded(zero: Mapping[str, Any]) -> bool:
    device: str = (zero.get("offload_optimizer") or {}).get("device", "none")
    return device != "none"
