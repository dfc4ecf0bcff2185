"""What Megatron-LM's parser makes of a rendered file, and the plans that it cannot do."""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.render.megatron_arguments import SOURCE, real_parser, recorded_parser
from tests.render.plans import plan_of, pool_of, small_experiment
from vdsgen.cli.main import cli
from vdsgen.errors import VdsgenError
from vdsgen.render.others import render_others
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Pool
from vdsgen.spec.optimization import AdamW, Schedule
from vdsgen.spec.plan import ActivationCheckpointing, Communication, Plan, PlannedNode, Precision, Zero
from vdsgen.spec.training import Ema

PROCESSORS = Pool(name="cpu", gpu="cpu", gpus_per_node=4, intra_node="shared-memory", host_memory_gib=16.0)
OFFLOADED = Zero(stage=1, offload_optimizer="cpu", reduce_bucket_elements=1, allgather_bucket_elements=1)


def words(plan: Plan, experiment: Experiment | None = None) -> list[str]:
    """As `$(grep -v '^#' FILE)` hands them to a script."""
    text = render_others(["megatron"], plan, experiment or small_experiment())["megatron.args"].decode()
    return [word for line in text.splitlines() if not line.startswith("#") for word in line.split()]


def parsed(plan: Plan, experiment: Experiment | None = None) -> argparse.Namespace:
    return recorded_parser().parse_args(words(plan, experiment))


def with_stages(plan: Plan, bounds: list[int]) -> Plan:
    stages = tuple(
        plan.stages[0].model_copy(update={"index": index, "layers": (start, end)})
        for index, (start, end) in enumerate(pairwise(bounds))
    )
    return plan.model_copy(
        update={"stages": stages, "model": plan.model.model_copy(update={"layers": bounds[-1]})}
    )


def test_the_parser_takes_what_is_planned() -> None:
    args = parsed(
        plan_of(interval=2),
        small_experiment(
            seed=7,
            optimizer=AdamW(learning_rate=2e-5, epsilon=1e-6),
            schedule=Schedule(type="cosine", warmup_steps=3, final_fraction=0.1),
        ),
    )
    assert (args.pipeline_model_parallel_size, args.tensor_model_parallel_size) == (2, 1)
    assert (args.num_layers, args.hidden_size, args.num_attention_heads, args.ffn_hidden_size) == (
        4,
        64,
        4,
        128,
    )
    assert args.seq_length == args.max_position_embeddings == 8 * 16  # 8 frames of 4 x 4 patches
    assert (args.micro_batch_size, args.global_batch_size, args.train_iters) == (1, 4, 10)
    assert (args.recompute_granularity, args.recompute_method, args.recompute_num_layers) == (
        "full",
        "uniform",
        2,
    )
    assert args.fp16 and (args.initial_loss_scale, args.loss_scale_window, args.hysteresis) == (512, 2000, 2)
    assert args.use_distributed_optimizer and not args.accumulate_allreduce_grads_in_fp32
    assert (args.lr, args.min_lr, args.adam_eps) == (2e-5, 2e-6, 1e-6)
    assert (args.lr_decay_style, args.lr_warmup_iters, args.lr_decay_iters) == ("cosine", 3, 10)
    assert args.seed == 7


def test_precision_in_megatrons_words() -> None:
    in_fp32 = parsed(plan_of(dtype="bf16", accumulation_dtype="fp32"))
    assert in_fp32.bf16 and not in_fp32.fp16 and not in_fp32.grad_reduce_in_bf16
    assert parsed(plan_of(dtype="bf16", accumulation_dtype="bf16")).grad_reduce_in_bf16
    assert parsed(plan_of(dtype="fp16", accumulation_dtype="fp32")).accumulate_allreduce_grads_in_fp32
    full = parsed(plan_of(dtype="fp32", zero_stage=0, interval=0))
    assert not (full.bf16 or full.fp16 or full.use_distributed_optimizer)
    assert full.recompute_granularity is None
    assert full.seed is None  # Megatron refuses a seed of 0


def test_stages_are_said_where_megatron_can() -> None:
    even = parsed(with_stages(plan_of(pipeline=4, data=1), [0, 3, 5, 7, 10]))
    assert (even.num_layers, even.decoder_first_pipeline_num_layers) == (8, None)
    uneven = parsed(with_stages(plan_of(pipeline=4, data=1), [0, 2, 5, 8, 10]))
    assert uneven.num_layers == 1 + 3 + 3 + 1
    assert (uneven.decoder_first_pipeline_num_layers, uneven.decoder_last_pipeline_num_layers) == (1, 1)
    with pytest.raises(VdsgenError, match=r"stages of 2/3/1/2 blocks"):
        words(with_stages(plan_of(pipeline=4, data=1), [0, 3, 6, 7, 10]))
    with pytest.raises(VdsgenError, match="a stage without blocks"):
        words(with_stages(plan_of(pipeline=2, data=1), [0, 9, 10]))
    with pytest.raises(VdsgenError, match="checkpoints of 3 blocks on stages of 4/4"):
        words(with_stages(plan_of(interval=3), [0, 5, 10]))


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"pipeline": 1, "data": 4, "zero_stage": 2}, "ZeRO-2"),
        ({"data": 1, "sequence": 2}, "sequence parallelism"),
        ({"pool": PROCESSORS}, "processors"),
        ({"zero": OFFLOADED}, "ZeRO's offload"),
        ({"communication": Communication(dtype="bf16")}, "another precision"),
        (
            {"activation_checkpointing": ActivationCheckpointing(interval=1, plain_layers=(1, 1))},
            "some layers otherwise",
        ),
        (
            {"precision": Precision(dtype="bf16", gradient_accumulation_dtype="fp32", linear="int8")},
            "linear layers in int8",
        ),
    ],
)
def test_what_it_cannot_do_is_named(changes: dict[str, Any], part: str) -> None:
    with pytest.raises(VdsgenError, match=part):
        words(plan_of(**changes))


def test_everything_that_it_cannot_do_is_named_at_once() -> None:
    experiment = small_experiment(ema=Ema(), schedule=Schedule(type="one_cycle"), method="lora")
    with pytest.raises(VdsgenError) as caught:
        words(plan_of(pipeline=1, data=4, zero_stage=3), experiment)
    for part in ("ZeRO-3", "averaged weights", "schedule one_cycle", "adapters"):
        assert part in str(caught.value)


def test_planned_gpus_and_machines_are_in_the_heading() -> None:
    nodes = (PlannedNode(node=0, gpus=8, devices=(6, 2)),)
    plan = plan_of(pipeline=1, data=2, pool=pool_of(1, 8, free_gpus=(2, 6)), nodes=nodes)
    text = render_others(["megatron"], plan, small_experiment())["megatron.args"].decode()
    assert "(CUDA_VISIBLE_DEVICES): 2,6." in text and "--nnodes 1 --nproc_per_node 2" in text


@pytest.mark.skipif(real_parser() is None, reason=f"{SOURCE} names no source of Megatron-LM")
def test_megatrons_own_parser_takes_it() -> None:
    """Run by hand: Megatron-LM is in no package."""
    parser = real_parser()
    assert parser is not None
    for plan in (plan_of(), plan_of(dtype="bf16", accumulation_dtype="fp32", interval=0)):
        args = parser.parse_args(words(plan))
        assert (args.pipeline_model_parallel_size, args.num_layers, args.lr) == (2, 4, 1e-4)


def test_it_is_generated_checked_and_refused_by_the_commands(tmp_path: Path) -> None:
    examples = Path(__file__).parents[2] / "examples"
    arguments = [
        "generate", str(examples / "experiments" / "article-1.5b-pinned.yaml"),
        "--lab", str(examples / "labs" / "four-24gb.yaml"), "--out", str(tmp_path / "out"),
        "--also", "megatron",
    ]  # fmt: skip
    refused = CliRunner().invoke(cli, [*arguments, "--set", "constraints.recompute=selective"])
    assert refused.exit_code in (2, 3) and not (tmp_path / "out").exists()
    made = CliRunner().invoke(cli, arguments)
    assert made.exit_code == 0, made.output
    path = tmp_path / "out" / "megatron.args"
    assert "--pipeline-model-parallel-size 2\n" in path.read_text()
    assert CliRunner().invoke(cli, ["check", str(path.parent)]).exit_code == 0
    path.write_text(
        path.read_text().replace("--pipeline-model-parallel-size 2", "--pipeline-model-parallel-size 4")
    )
    stale = CliRunner().invoke(cli, ["check", str(path.parent)])
    assert stale.exit_code == 1 and "megatron.args: edited by hand" in stale.output
