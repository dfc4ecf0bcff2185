"""Two DeepSpeed configs differ where the engine would do something else, however they are written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.review.configs import ABSENT, BASE, change, config, diff_of, shown_keys
from vdsgen.errors import InputError
from vdsgen.review.diff import diff_sides
from vdsgen.review.side import plain_config

WARM = {"type": "WarmupLR", "params": {"warmup_max_lr": 1e-4}}
ZERO_2 = {"stage": 2}

THE_SAME: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a default written out": (config(), config(zero_optimization={**ZERO_2, "overlap_comm": False})),
    "overlap_comm is true at stage 3": (
        config(zero_optimization={"stage": 3}),
        config(zero_optimization={"stage": 3, "overlap_comm": True}),
    ),
    "clipping at 1 is the default": (config(), config(gradient_clipping=ABSENT)),
    "another spelling of a number": (
        config(zero_optimization={**ZERO_2, "reduce_bucket_size": 5e8}),
        config(zero_optimization={**ZERO_2, "reduce_bucket_size": 500000000}),
    ),
    "numbers as text": (
        config(zero_optimization={**ZERO_2, "reduce_bucket_size": 3000}),
        config(zero_optimization={**ZERO_2, "reduce_bucket_size": "3000"}),
    ),
    "cpu_offload": (
        config(zero_optimization={**ZERO_2, "cpu_offload": True}),
        config(zero_optimization={**ZERO_2, "offload_optimizer": {"device": "cpu"}}),
    ),
    "stage3_gather_fp16_weights_on_model_save": (
        config(zero_optimization={"stage": 3, "stage3_gather_fp16_weights_on_model_save": True}),
        config(zero_optimization={"stage": 3, "stage3_gather_16bit_weights_on_model_save": True}),
    ),
    "names without stage3_": (
        config(zero_optimization={"stage": 3, "prefetch_bucket_size": 7000}),
        config(zero_optimization={"stage": 3, "stage3_prefetch_bucket_size": 7000}),
    ),
    "bfloat16": (config(), config(bf16=ABSENT, bfloat16={"enabled": True})),
    "zero_optimization: true": (config(zero_optimization=True), config(zero_optimization={"stage": 1})),
    "Adam is AdamW": (config(), config(optimizer={"type": "Adam", "params": BASE["optimizer"]["params"]})),
    "capitals of the optimizer": (
        config(),
        config(optimizer={"type": "adamw", "params": BASE["optimizer"]["params"]}),
    ),
    "defaults of the optimizer's class": (
        config(),
        config(optimizer={"type": "AdamW", "params": {"lr": 1e-4, "weight_decay": 0.01, "eps": 1e-8}}),
    ),
    "accumulation follows from the other two": (config(), config(gradient_accumulation_steps=ABSENT)),
    "the total follows from the other two": (config(), config(train_batch_size=ABSENT)),
    "fp16's keys without fp16": (config(), config(fp16={"enabled": False, "loss_scale_window": 7})),
    "a monitor that is off": (config(), config(wandb={"enabled": False, "project": "mine"})),
    "stage 3's keys at stage 2": (
        config(),
        config(zero_optimization={**ZERO_2, "stage3_max_live_parameters": 7}),
    ),
    "offload of nothing": (
        config(),
        config(zero_optimization={**ZERO_2, "offload_optimizer": {"device": "none", "buffer_count": 9}}),
    ),
    "the rate moved into the schedule": (
        config(scheduler={"type": "WarmupLR", "params": {"warmup_num_steps": 9}}),
        config(
            optimizer={"type": "AdamW", "params": {"weight_decay": 0.01}},
            scheduler={"type": "WarmupLR", "params": {"warmup_num_steps": 9, "warmup_max_lr": 1e-4}},
        ),
    ),
    "the optimizer's rate beside the schedule's": (
        config(scheduler=WARM),
        config(scheduler=WARM, optimizer={"type": "AdamW", "params": {"lr": 5.0, "weight_decay": 0.01}}),
    ),
    "the model's dtype for sums and messages": (
        config(),
        config(data_types={"grad_accum_dtype": "bf16"}, communication_data_type="BF16"),
    ),
    "an empty section": (config(), config(fp16={}, tensorboard={})),
    "null at the top": (config(), config(dump_state=None)),
}


@pytest.mark.parametrize("name", THE_SAME)
def test_what_comes_to_the_same_is_no_difference(name: str) -> None:
    old, new = THE_SAME[name]
    for one, other in ((old, new), (new, old)):
        result = diff_of(one, other)
        assert result.same, result.shown
        assert result.verdicts.loss_curve == "identical"
        assert result.verdicts.resume.verdict == "as_is"
        assert not any(risk.severity == "error" for risk in result.risks)


@pytest.mark.parametrize(
    ("name", "key", "note"),
    [
        ("a default written out", "zero_optimization.overlap_comm", "the default, written out"),
        ("clipping at 1 is the default", "gradient_clipping", "the default, left out"),
        (
            "cpu_offload",
            "zero_optimization.offload_optimizer.device",
            "renamed: was zero_optimization.cpu_offload",
        ),
        ("bfloat16", "bf16.enabled", "renamed: was bf16.enabled, is bfloat16.enabled"),
        ("capitals of the optimizer", "optimizer.type", "another spelling of the same value"),
        (
            "accumulation follows from the other two",
            "gradient_accumulation_steps",
            "follows from the other batch sizes on 4 ranks",
        ),
        ("a monitor that is off", "wandb.project", "not read: wandb.enabled is false"),
        ("the rate moved into the schedule", "optimizer.params.lr", "the peak stays 0.0001"),
        (
            "the optimizer's rate beside the schedule's",
            "optimizer.params.lr",
            "not read: WarmupLR sets the learning rate",
        ),
    ],
)
def test_it_says_why_it_comes_to_the_same(name: str, key: str, note: str) -> None:
    found = change(diff_of(*THE_SAME[name]), key)
    assert (found.note, found.affects) == (note, ())


@pytest.mark.parametrize(
    ("old", "new", "key", "was", "now"),
    [
        (config(gradient_clipping=0.0), config(gradient_clipping=ABSENT), "gradient_clipping", 0, 1.0),
        (
            config(zero_optimization={**ZERO_2, "overlap_comm": True}),
            config(),
            "zero_optimization.overlap_comm",
            True,
            False,
        ),
        (
            config(fp16={"enabled": True, "initial_scale_power": 9}, bf16=ABSENT),
            config(fp16={"enabled": True}, bf16=ABSENT),
            "fp16.initial_scale_power",
            9,
            16,
        ),
        (
            config(),
            config(optimizer={"type": "AdamW", "params": {"lr": 1e-4}}),
            "optimizer.params.weight_decay",
            0.01,
            0.0,
        ),
    ],
)
def test_a_key_that_goes_leaves_the_engine_s_default(
    old: dict[str, Any], new: dict[str, Any], key: str, was: Any, now: Any
) -> None:
    result = diff_of(old, new)
    assert not result.same
    assert (change(result, key).was, change(result, key).now) == (was, now)


def test_a_default_that_changes_with_another_key_is_a_change() -> None:
    """torch's AdamW decays weights by 0.01 by itself, DeepSpeed's by nothing."""
    result = diff_of(
        config(optimizer={"type": "AdamW", "params": {"lr": 1e-4}}),
        config(optimizer={"type": "AdamW", "params": {"lr": 1e-4, "torch_adam": True}}),
    )
    decay = change(result, "optimizer.params.weight_decay")
    assert (decay.was, decay.now, decay.curve) == (0.0, 0.01, "different")
    assert result.verdicts.loss_curve_because == ("ds_config.json:optimizer.params.weight_decay",)


def test_a_rate_that_stands_in_both_sections_is_one_change() -> None:
    def with_rate(rate: float) -> dict[str, Any]:
        schedule = {"type": "WarmupLR", "params": {"warmup_max_lr": rate}}
        return config(optimizer={"type": "AdamW", "params": {"lr": rate}}, scheduler=schedule)

    result = diff_of(with_rate(1e-4), with_rate(3e-4))
    assert shown_keys(result) == {"optimizer.params.lr"}
    peak = change(result, "scheduler.params.warmup_max_lr")
    assert peak.follows_from == "ds_config.json:optimizer.params.lr"


def test_a_batch_that_nobody_writes_is_compared() -> None:
    old = {"train_micro_batch_size_per_gpu": 4}
    result = diff_of(old, {"train_micro_batch_size_per_gpu": 8, "gradient_accumulation_steps": 2})
    assert "4 times as many samples a step" in (change(result, "train_batch_size").note or "")
    assert result.verdicts.loss_curve == "different"
    assert diff_of(old, {**old, "gradient_accumulation_steps": 1}).same


def test_the_same_batch_in_other_pieces_is_rounding() -> None:
    result = diff_of(config(), config(train_micro_batch_size_per_gpu=8, gradient_accumulation_steps=1))
    assert result.verdicts.loss_curve == "rounding"
    assert result.verdicts.learning_rate is None


def test_what_trainers_fill_in_is_no_default() -> None:
    """Files with "auto" are for Transformers and Accelerate, which put their own values there."""
    old = config(zero_optimization={"stage": 3, "reduce_bucket_size": "auto"}, train_batch_size="auto")
    new = {**old, "zero_optimization": {"stage": 3, "reduce_bucket_size": 500000000}}
    assert diff_of(old, old).same
    assert shown_keys(diff_of(old, new)) == {"zero_optimization.reduce_bucket_size"}


def test_files_are_read_as_deepspeed_reads_them() -> None:
    text = b"# mine\n" + json.dumps(BASE).encode()[:-1] + b",}"
    assert diff_sides(plain_config("a", text), plain_config("b", json.dumps(BASE).encode())).same


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b'{"a": 1, "a": 2}'])
def test_what_is_no_config_is_refused_with_its_place(content: bytes) -> None:
    with pytest.raises(InputError, match=r"^rev:a\.json"):
        plain_config("rev:a.json", content)
