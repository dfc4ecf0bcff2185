"""A plan as the two TOML files of diffusion-pipe: its training config, and its dataset's."""

from __future__ import annotations

from typing import Any

from vdsgen.render.diffusion_pipe_limits import Family, family_of
from vdsgen.render.placement import placement
from vdsgen.render.toml_text import toml_lines
from vdsgen.spec.diffusers_model import DiffusersModel
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.plan import Plan
from vdsgen.spec.recipes import trained_recipe
from vdsgen.spec.recipes.recipe import FixedShift

FILES = ("diffusion-pipe.toml", "diffusion-pipe-dataset.toml")

HEADER = """\
# What this directory plans, for diffusion-pipe (github.com/tdrussell/diffusion-pipe):
#
#     {devices}deepspeed --num_gpus={ranks} train.py --deepspeed --config DIR/diffusion-pipe.toml
#
# A step is {global_batch} clips: {micro_batch} at a time on each of {data} data ranks, {accumulation} times.
# Paths are seen from where it is started.
"""

DATASET_HEADER = """\
# The clips of train.yaml; clips that are too short, and those that fill no whole step, are left out there.
"""

ENDLESS = 1_000_000
"""Epochs: `max_steps` ends the run."""

DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


def diffusion_pipe_files(plan: Plan, experiment: Experiment) -> dict[str, str]:
    """Both files. Of a plan that `diffusion_pipe_limits` has nothing against."""
    return {FILES[0]: _training(plan, experiment), FILES[1]: _dataset(experiment)}


def _training(plan: Plan, experiment: Experiment) -> str:
    family, model = family_of(experiment), experiment.model
    assert family is not None and isinstance(model, DiffusersModel)
    place, batch = placement(plan), plan.batch
    devices = ",".join(map(str, place.devices[0])) if place.devices else ""
    header = HEADER.format(
        devices=f"CUDA_VISIBLE_DEVICES={devices} " if devices else "",
        ranks=plan.parallel.world_size,
        global_batch=batch.global_batch_size,
        micro_batch=batch.micro_batch_size,
        data=plan.parallel.data_parallel_size,
        accumulation=batch.gradient_accumulation_steps,
    )
    comments = {"dataset": "put DIR/ before it", "epochs": "max_steps ends the run"}
    lines = toml_lines(_run(plan, experiment), comments)
    lines += ["", "[model]", *_model(plan, experiment, family, model)]
    if experiment.training.method == "lora":
        adapter = {"type": "lora", "rank": experiment.training.lora.rank, "dtype": "float32"}
        lines += [
            "",
            "[adapter]",
            *toml_lines(adapter, {"dtype": "as the fp32 weights that are planned; gradients too"}),
        ]
    optimizer = experiment.training.optimizer
    lines += ["", "[optimizer]"]
    lines += toml_lines(
        {
            "type": "adamw",
            "lr": optimizer.learning_rate,
            "betas": [optimizer.beta1, optimizer.beta2],
            "eps": optimizer.epsilon,
            "weight_decay": optimizer.weight_decay,
        }
    )
    return header + "\n".join(lines) + "\n"


def _run(plan: Plan, experiment: Experiment) -> dict[str, Any]:
    """Keys of the file itself."""
    training, parallel = experiment.training, plan.parallel
    model = experiment.model
    assert isinstance(model, DiffusersModel)
    run: dict[str, Any] = {
        "output_dir": f"runs/{experiment.name}",
        "dataset": FILES[1],
        "epochs": ENDLESS,
        "max_steps": training.steps,
        "micro_batch_size_per_gpu": plan.batch.micro_batch_size,
        "pipeline_stages": parallel.pipeline_parallel_size,
        "gradient_accumulation_steps": plan.batch.gradient_accumulation_steps,
        "gradient_clipping": training.gradient_clipping,
        "warmup_steps": training.schedule.warmup_steps,
        "activation_checkpointing": plan.activation_checkpointing.interval == 1,
        "uncond_fraction": trained_recipe(model, experiment).condition_dropout,
        "save_every_n_steps": training.saving.every_steps,
        "checkpoint_every_n_minutes": 60,
        "video_clip_mode": "single_middle",
    }
    if parallel.pipeline_parallel_size > 1:
        # Its layers are counted as ours: embedding, blocks, final layer.
        run["partition_method"] = "manual"
        run["partition_split"] = [stage.layers[0] for stage in plan.stages[1:]]
    return run


def _model(plan: Plan, experiment: Experiment, family: Family, model: DiffusersModel) -> list[str]:
    recipe = trained_recipe(model, experiment)
    table: dict[str, Any] = {"type": family.type, **_weights(experiment, family, model)}
    comments = {
        "ckpt_path": "the original checkpoint: diffusers' folder is another format",
        "single_file_path": "the original single file of the same version",
    }
    table["dtype"] = DTYPES[plan.precision.dtype]
    table["timestep_sample_method"] = recipe.timesteps.kind
    if recipe.timesteps.kind == "logit_normal" and recipe.timesteps.std != 1.0:
        table["sigmoid_scale"] = recipe.timesteps.std
    if family.type == "wan":
        assert isinstance(recipe.shift, FixedShift)
        table |= {"shift": recipe.shift.value, "min_t": recipe.timesteps.low, "max_t": recipe.timesteps.high}
    elif recipe.first_frame_share:
        table["first_frame_conditioning_p"] = recipe.first_frame_share
    return toml_lines(table, comments)


def _weights(experiment: Experiment, family: Family, model: DiffusersModel) -> dict[str, str]:
    """Beside the folder of diffusers, by the names that publishers give both."""
    folder = (model.weights or "").rstrip("/").removesuffix("/transformer")
    if family.type == "wan":
        stripped = folder.removesuffix("-Diffusers")
        return {"ckpt_path": stripped if stripped != folder else f"{folder}-original"}
    pipeline = experiment.data.pipeline or folder
    return {
        "diffusers_path": pipeline,
        "single_file_path": f"{pipeline.rstrip('/')}/ltx-video-2b-v0.9.safetensors",
    }


def _dataset(experiment: Experiment) -> str:
    data = experiment.data
    size = [data.width, data.height, data.frames]
    lines = toml_lines({"size_buckets": [size]}, {"size_buckets": "width, height, frames"})
    lines += ["", "[[directory]]"]
    lines += toml_lines(
        {"path": data.videos, "num_repeats": 1}, {"path": "clips of the folder itself, not of folders in it"}
    )
    return DATASET_HEADER + "\n".join(lines) + "\n"
