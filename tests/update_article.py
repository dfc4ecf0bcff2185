"""Writes docs/article.md: what the article says beside what the committed plans say.

    python -m tests.update_article

Every figure of ours is read from examples/rendered, which a test keeps fresh; another test fails when this
page is stale.
"""

from __future__ import annotations

from pathlib import Path

from tests.article_claims import pipeline_rows, scale_rows, square_root_rows, unet_rows, workload
from tests.article_measured import MEASURED, command_rows
from tests.article_setups import saved_by_plan, saved_words, sections
from vdsgen.catalog.inputs import open_inputs
from vdsgen.cli.profiles import find_profile
from vdsgen.planner.baseline import Baseline, naive_baseline
from vdsgen.planner.plan import make_plan
from vdsgen.planner.plan_settings import settings_of
from vdsgen.planner.resolve import workload_of
from vdsgen.planner.words import checkpoint_words
from vdsgen.spec.plan import Plan
from vdsgen.spec.rendered import Rendered, read_rendered
from vdsgen.spec.run import sharing_words

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/article.md"
GIB, GB = 1024**3, 1e9
VIDEOS = 100_000


def example(name: str) -> Rendered:
    return read_rendered(ROOT / "examples/rendered" / name)


def baseline_of(rendered: Rendered) -> Baseline:
    return naive_baseline(workload(rendered))


def peak_bytes(plan: Plan) -> int:
    return max(stage.memory.peak_bytes for stage in plan.stages)


def gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


def hours(plan: Plan) -> str:
    return f"{VIDEOS / plan.predicted.samples_per_second / 3600:.0f} h"


def choices(plan: Plan) -> str:
    parallel = plan.parallel
    shared = sharing_words(parallel.tensor_parallel_size, parallel.sequence_parallel_size).replace("x", "×")
    return (
        f"{parallel.pipeline_parallel_size} pipeline × {parallel.data_parallel_size} data{shared}, "
        f"ZeRO-{plan.zero.stage}, micro-batch {plan.batch.micro_batch_size}, "
        f"accumulation {plan.batch.gradient_accumulation_steps}, {checkpoint_words(settings_of(plan))}, {plan.precision.dtype}"
    )


def outcome(plan: Plan) -> str:
    return (
        f"{gib(peak_bytes(plan))} on the fullest GPU, {plan.predicted.samples_per_second:.2f} samples/s, "
        f"{VIDEOS:,} videos in {hours(plan)}"
    )


def rows() -> list[tuple[str, str, str]]:
    free, pinned = example("article-1.5b@four-24gb"), example("article-1.5b-pinned@four-24gb")
    small, small_pinned = example("article-1.2b@four-16gb"), example("article-1.2b-pinned@four-16gb")
    baseline = baseline_of(free).memory
    states = baseline.parameters_bytes + baseline.gradients_bytes + baseline.optimizer_bytes
    article = pinned.plan.predicted.samples_per_second
    return [
        (
            "A1",
            "1.5 B parameters with Adam: near 24 GB before activations",
            f"{states / GB:.1f} GB ({gib(states)}) for {free.plan.model.parameters:,} parameters: 2 bytes of "
            "weights, 2 of gradients and 12 of optimizer states each",
        ),
        (
            "A1",
            "activations can exceed 40 GB",
            f"{gib(baseline.activations_bytes)} for one clip of 16 frames of 256 × 256 without checkpointing, "
            f"traced from the model's layers: two clips a GPU pass {2 * baseline.activations_bytes / GB:.0f} GB",
        ),
        *unet_rows(),
        *saved_rows(),
        *square_root_rows(free),
        (
            "A4",
            "checkpoint boundaries at attention blocks and temporal convolutions, every 3-4 blocks, non-reentrant",
            "a block (spatial attention, temporal attention, temporal convolution, MLP) is one pipeline layer "
            f"and one unit of the interval; the planner searches the interval and takes {_interval(free.plan)} "
            "here; `use_reentrant` is false",
        ),
        (
            "A5",
            "accumulation over 8 steps × 4 GPUs: 32 sequences",
            "`global_batch_size` is the lab's; micro-batch × accumulation × data ranks equals it exactly in every "
            "plan, or `vdsgen plan` says which nearby batch would work",
        ),
        *pipeline_rows(),
        (
            "A9",
            "4 × 24 GB: 2 pipeline × 2 data, checkpoint every 3 blocks, fp16, accumulation 4, 1.5 B",
            f"fits: {choices(pinned.plan)}: {outcome(pinned.plan)}",
        ),
        (
            "A9",
            "… provides optimal performance",
            f"predicted to be slower than {choices(free.plan)}: {outcome(free.plan)}, "
            f"{free.plan.predicted.samples_per_second / article:.2f} × the article's configuration, which waits "
            f"{pinned.plan.predicted.bubble_fraction:.0%} of each step in the pipeline",
        ),
        (
            "A10",
            "fp16 with dynamic loss scaling from 512, window 2000; fp32 where it matters",
            f"the defaults of `training.loss_scaling`, rendered where fp16 is planned (scale from "
            f"{pinned.plan.precision.initial_loss_scale}, window {pinned.plan.precision.loss_scale_window}); norms "
            "and softmax accumulate in fp32, timestep features and the loss are fp32; bf16 is preferred where "
            f"the GPU has it ({free.plan.inputs.pool.gpu}: {free.plan.precision.dtype})",
        ),
        *scale_rows(example("article-2.1b-pinned@eight-24gb"), example("article-2.1b@eight-24gb")),
        (
            "A13",
            "1.2 B on 4 × 16 GB, 2 × 2, micro-batch 1, accumulation 8, interval 3, fp16: 14.5 GB peak, "
            "0.8 samples/s, 100,000 videos in 35 h",
            f"the same choices on {small_pinned.plan.parallel.world_size} × {small_pinned.plan.inputs.pool.gpu}: "
            f"{outcome(small_pinned.plan)}",
        ),
        ("A13", "(the planner's own choice)", f"{choices(small.plan)}: {outcome(small.plan)}"),
        (
            "A17",
            "guide by profiling; ablation studies",
            "`vdsgen calibrate` measures the machine, `vdsgen verify` proves a plan's memory in DeepSpeed's own engine "
            "without a GPU, `vdsgen ablate` measures and ranks a set of plans; how well predictions agree is in "
            "[planner.md](planner.md) (time), [engine.md](engine.md) (memory) and [published.md](published.md) (others' GPUs)",
        ),
        (
            "A20",
            "figures: memory hierarchy and timeline, checkpointing before and after, topology, precision, profiling",
            "`vdsgen report` draws them from the figures of a plan ([report.md](report.md)) or a run "
            "([run_report.md](run_report.md)) in one HTML file; samples after training: [training.md](training.md)",
        ),
        (
            "A21",
            "configurations that others can adapt and share",
            "`examples/rendered/`: rendered directories, the same bytes on every machine, kept fresh by a test",
        ),
    ]


def saved_rows() -> list[tuple[str, str, str]]:
    """A2: each set-up's two plans, from naive, and the verdict."""
    known = list(saved_by_plan())
    plans = "; ".join(
        f"{heading}, {whose}: {gib(fall.naive_bytes)} to {gib(fall.plan_bytes)}, {saved_words(fall)}"
        for heading, whose, fall in known
    )
    shares = [fall.saved_fraction for _, _, fall in known]
    return [
        (
            "A2",
            "careful management needs 60-70 % less",
            f"{min(shares):.0%} to {max(shares):.0%} less than plain data parallelism on the fullest GPU, one measure "
            f"after the other (what each saves, of the naive peak; a negative share spends memory). {plans}",
        )
    ]


def _interval(plan: Plan) -> str:
    interval = plan.activation_checkpointing.interval
    return "no checkpointing" if not interval else "every block" if interval == 1 else f"every {interval}"


def one_gpu_row() -> tuple[str, str, str]:
    """A12: planned here, since no rendered directory is of it."""
    lab, experiment = open_inputs(
        ROOT / "examples/labs/one-16gb.yaml", ROOT / "examples/experiments/wan-14b-lora.yaml"
    )
    (pool,) = lab.pools
    plan = make_plan(experiment, pool, find_profile(experiment))
    naive = naive_baseline(workload_of(experiment, pool, find_profile(experiment), plan.nodes)).memory
    return (
        "A12",
        "LoRA, checkpointing and activation offload on one 16 GB GPU",
        f"all three, planned together: adapters of Wan 2.1 with {plan.model.parameters / 1e9:.1f} B parameters, clips of "
        f"81 frames of 480 × 832, on one {plan.inputs.pool.gpu}: {gib(peak_bytes(plan))} of "
        f"{gib(plan.stages[0].capacity_bytes)}, {gib(naive.peak_bytes)} without a plan. It fits; at "
        f"{plan.predicted.step_seconds:,.0f} s a step nobody would wait for it: 1.3 B, or more GPUs, are for that",
    )


def by_row(row: tuple[str, str, str]) -> int:
    return int(row[0].removeprefix("A"))


def page() -> str:
    answers = sorted([*rows(), one_gpu_row(), *(one.cells for one in MEASURED)], key=by_row)
    table = "\n".join(f"| {row} | {said} | {answer} |" for row, said, answer in answers)
    return f"""# The article beside vdsgen

Written by `python -m tests.update_article` from `examples/rendered`; a test fails when it is stale.

vdsgen began as an implementation of *Computational Optimization Techniques for Video Generation Model
Development*. This page holds its figures beside ours. Memory and time are **predictions**: memory from traces
of the model's layers and from what DeepSpeed's optimizers allocate (held against the real engine on CPU ranks,
[memory.md](memory.md)), time from published rates of the GPUs; nobody has run these plans on these cards for this
page. GB is 10⁹ bytes, GiB is 2³⁰; the article does not say which it means.

| row | the article says | vdsgen answers |
|---|---|---|
{table}

## The commands

What prints the figures of a row, or measures them again; rows with a page have more there.

{command_rows()}

## Its choices beside the planner's

Both are planned for the same lab, global batch and clips; the article's choices are pins
(`examples/experiments/*-pinned.yaml`), what it leaves open is planned. Each difference is put to the test twice:
pinned in the planner's experiment with all else planned again, and pinned in the article's with its other pins
kept. Where a layout is pinned, micro-batch and accumulation follow.

{sections()}

## Caveats

The article's model is not published, so its figures and ours are of two models of one size. Its 0.8 samples/s
are said without a GPU, and our rate follows the card that `examples/labs/four-16gb.yaml` names.
"""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
