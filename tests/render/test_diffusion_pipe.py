"""What diffusion-pipe reads in rendered files, and the plans that it cannot do."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from tests.render.plans import plan_of, pool_of, small_experiment
from vdsgen.catalog.load import pretrained
from vdsgen.errors import VdsgenError
from vdsgen.render.others import render_others
from vdsgen.render.toml_text import toml_lines
from vdsgen.spec.data import ClipSize, Data
from vdsgen.spec.diffusers_model import DiffusersModel
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.optimization import Schedule
from vdsgen.spec.plan import ActivationCheckpointing, Plan, PlannedNode
from vdsgen.spec.recipes.changes import RecipeChanges
from vdsgen.spec.training import Diffusion, Ema, Lora, Training

# What tdrussell/diffusion-pipe reads, as far as plans say it: train.py (203e2c1507ad), utils/saver.py
# (4cfb1d1323f7), utils/dataset.py (0784ca8bdf7c), models/wan/wan.py and models/ltx_video.py (41fa1286a53d).
READ = {
    "": {
        "output_dir", "dataset", "epochs", "max_steps", "micro_batch_size_per_gpu", "pipeline_stages",
        "gradient_accumulation_steps", "gradient_clipping", "warmup_steps", "activation_checkpointing",
        "uncond_fraction", "save_every_n_steps", "checkpoint_every_n_minutes", "video_clip_mode",
        "partition_method", "partition_split", "model", "adapter", "optimizer",
    },
    "model": {
        "type", "ckpt_path", "diffusers_path", "single_file_path", "dtype", "timestep_sample_method",
        "sigmoid_scale", "shift", "min_t", "max_t", "first_frame_conditioning_p",
    },
    "adapter": {"type", "rank", "dtype"},
    "optimizer": {"type", "lr", "betas", "eps", "weight_decay"},
}  # fmt: skip
LINEAR = ("to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2")


def wan(name: str = "wan2.1-t2v-1.3b", **changes: Any) -> Experiment:
    """LoRA of a model of the catalogue, with what diffusion-pipe needs; changes by part of the experiment."""
    entry = pretrained()[name]
    model = DiffusersModel(
        family="diffusers", name=name, class_name=entry.class_name, config=dict(entry.config),
        weights=changes.pop("weights", "models/Wan2.1-T2V-1.3B-Diffusers/transformer"),
    )  # fmt: skip
    data = {
        "videos": "data/videos", "frames": 33, "height": 480, "width": 832, "frame_rate": 16.0,
        "pipeline": "models/Wan2.1-T2V-1.3B-Diffusers",
    }  # fmt: skip
    training = {"global_batch_size": 4, "steps": 100, "method": "lora", "lora": Lora(rank=8, targets=LINEAR)}
    return Experiment(
        name="wan",
        model=model,
        data=Data(**{**data, **changes.pop("data", {})}),
        training=Training(**{**training, **changes}),
    )


def flat(**changes: Any) -> Plan:
    return plan_of(**{"zero_stage": 0, "dtype": "bf16", "depth": 30, **changes})


def read(plan: Plan, experiment: Experiment) -> tuple[dict[str, Any], dict[str, Any]]:
    files = render_others(["diffusion-pipe"], plan, experiment)
    config = tomllib.loads(files["diffusion-pipe.toml"].decode())
    assert set(config) <= READ[""]
    for section in ("model", "adapter", "optimizer"):
        assert set(config.get(section, {})) <= READ[section]
    return config, tomllib.loads(files["diffusion-pipe-dataset.toml"].decode())


def test_it_reads_what_is_planned() -> None:
    config, dataset = read(flat(), wan())
    assert (config["pipeline_stages"], config["partition_method"], config["partition_split"]) == (
        2,
        "manual",
        [16],
    )
    assert (config["micro_batch_size_per_gpu"], config["gradient_accumulation_steps"]) == (1, 2)
    assert (config["max_steps"], config["gradient_clipping"]) == (100, 1.0)
    assert config["activation_checkpointing"] is True and config["uncond_fraction"] == 0.1
    assert config["model"] == {
        "type": "wan", "ckpt_path": "models/Wan2.1-T2V-1.3B", "dtype": "bfloat16",
        "timestep_sample_method": "logit_normal", "shift": 3.0, "min_t": 0.0, "max_t": 1.0,
    }  # fmt: skip
    assert config["adapter"] == {"type": "lora", "rank": 8, "dtype": "float32"}
    assert config["optimizer"] == {
        "type": "adamw", "lr": 1e-4, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.01
    }  # fmt: skip
    assert dataset == {
        "size_buckets": [[832, 480, 33]],
        "directory": [{"path": "data/videos", "num_repeats": 1}],
    }


def test_every_weight_in_fp32_and_one_stage() -> None:
    config, _ = read(flat(pipeline=1, dtype="fp32", interval=0), wan(method="full", precision="fp32"))
    assert "adapter" not in config and "partition_split" not in config
    assert (config["model"]["dtype"], config["activation_checkpointing"]) == ("float32", False)


def test_an_experts_part_of_the_timesteps() -> None:
    changes = RecipeChanges(timestep_range=(0.9, 1.0), shift=5.0, logit_std=1.2)
    config, _ = read(flat(), wan(diffusion=Diffusion(recipe=changes)))
    model = config["model"]
    assert (model["min_t"], model["max_t"], model["shift"], model["sigmoid_scale"]) == (0.9, 1.0, 5.0, 1.2)


def test_ltx_video_has_paths_and_first_frames_of_its_own() -> None:
    experiment = wan(
        "ltx-video-2b",
        weights="models/LTX-Video/transformer",
        data={"pipeline": "models/LTX-Video", "frame_rate": 25.0},
        diffusion=Diffusion(recipe=RecipeChanges(shift=1.0, first_frame_share=0.1)),
    )
    model = read(flat(), experiment)[0]["model"]
    assert (model["type"], model["diffusers_path"]) == ("ltx-video", "models/LTX-Video")
    assert model["first_frame_conditioning_p"] == 0.1 and "shift" not in model


def test_adapters_of_an_image_branch_are_asked_for() -> None:
    with pytest.raises(VdsgenError, match=r"add_k_proj, add_v_proj, ffn\.net\.0\.proj"):
        read(flat(depth=40), wan("wan2.1-i2v-14b"))
    image = Lora(rank=8, targets=(*LINEAR, "add_k_proj", "add_v_proj"))
    read(flat(depth=40), wan("wan2.1-i2v-14b", lora=image))


@pytest.mark.parametrize(
    ("plan", "experiment", "part"),
    [
        (flat(), small_experiment(), "models other than Wan and LTXVideo"),
        (flat(zero_stage=1), wan(), "ZeRO-1"),
        (flat(data=1, tensor=2), wan(), "tensor parallelism"),
        (flat(data=1, sequence=2), wan(), "sequence parallelism"),
        (flat(interval=2), wan(), "checkpoints of 2 blocks"),
        (flat(pool=pool_of(2, 2)), wan(), "several machines"),
        (flat(dtype="fp16"), wan(), "fp16"),
        (flat(), wan(method="full"), "weights in fp32 beside it"),
        (flat(), wan(lora=Lora(rank=8)), "some linear layers of a block alone"),
        (flat(), wan(lora=Lora(rank=8, targets=(*LINEAR, "proj_out"))), "some linear layers"),
        (flat(), wan(lora=Lora(rank=8, alpha=16.0, targets=LINEAR)), "alpha"),
        (flat(), wan(weights=None), "random weights"),
        (flat(), wan(schedule=Schedule(type="cosine")), "schedule cosine"),
        (flat(), wan(ema=Ema()), "averaged weights"),
        (flat(), wan(data={"frame_rate": None}), "data.frame_rate: 16"),
        (flat(), wan("wan2.2-ti2v-5b", data={"frame_rate": 16.0}), "data.frame_rate: 24"),
        (flat(), wan(data={"random_flip": True}), "mirrored"),
        (flat(), wan(data={"buckets": (ClipSize(frames=1, height=480, width=832),)}), "further sizes"),
        (flat(), wan(data={"pipeline": None}), "autoencoder"),
        (flat(), wan("ltx-video-2b", data={"frame_rate": 25.0}), "a shift of timesteps"),
        (flat(), wan("ltx-video-2b", method="full"), "every weight of ltx-video"),
        (flat(), wan("hunyuanvideo-13b"), "models other than"),
        (
            flat(activation_checkpointing=ActivationCheckpointing(interval=1, offload=True)),
            wan(),
            "offload_activations: false",
        ),
        (
            flat(),
            wan(diffusion=Diffusion(recipe=RecipeChanges(timestep_sampling="mode"))),
            "distribution of timesteps",
        ),
    ],
)
def test_what_it_cannot_do_is_named(plan: Plan, experiment: Experiment, part: str) -> None:
    with pytest.raises(VdsgenError) as caught:
        read(plan, experiment)
    assert part in caught.value.message


def test_planned_gpus_are_chosen_for_its_runner() -> None:
    nodes = (PlannedNode(node=0, gpus=8, devices=(6, 2)),)
    plan = flat(pipeline=1, data=2, pool=pool_of(1, 8, free_gpus=(2, 6)), nodes=nodes)
    text = render_others(["diffusion-pipe"], plan, wan())["diffusion-pipe.toml"].decode()
    assert "CUDA_VISIBLE_DEVICES=2,6 deepspeed --num_gpus=2" in text


STRINGS = ['a"b\\c', "#x", "ünïcode ☃", "\x7f", "a\u2028b", "'''", "12:30"]


@pytest.mark.parametrize("path", STRINGS)
def test_strings_come_back_as_they_are(path: str) -> None:
    assert tomllib.loads("\n".join(toml_lines({"path": path}, {"path": "comment"}))) == {"path": path}


def test_its_own_reader_reads_both_files() -> None:
    toml = pytest.importorskip("toml")
    files = render_others(["diffusion-pipe"], flat(), wan())
    for text in files.values():
        assert toml.loads(text.decode()) == tomllib.loads(text.decode())
    for path in STRINGS:
        assert toml.loads("\n".join(toml_lines({"path": path}))) == {"path": path}
