"""Risks to what is learnt: rates, precision, clipping, order of clips."""

from __future__ import annotations

from collections.abc import Iterator

from vdsgen.review.effective import EffectiveConfig
from vdsgen.review.impact import warmup_steps
from vdsgen.review.risk import Risk, Rule, Sides, engine_key

HIGHEST_START = 12
"""Power of two that a dynamic loss scale starts at for video, at most (rules/loss_scaling.py)."""
MUCH_FASTER = 2.0
"""Times the learning rate that a larger batch would explain."""


def _loss_scale(sides: Sides) -> Iterator[Risk]:
    def start(config: EffectiveConfig) -> int | None:
        power = config.value("fp16.initial_scale_power")
        dynamic = config.dtype == "fp16" and config.value("fp16.loss_scale") == 0
        return power if dynamic and isinstance(power, int) else None

    was, now = start(sides.old), start(sides.new)
    if now is not None and now > HIGHEST_START and (was is None or was < now):
        yield Risk(
            "loss-scale-starts-high", "warning",
            f"the loss scale starts at 2^{now}: the first steps overflow, and are skipped",
            "write fp16.initial_scale_power: 9, which video models start with",
            (engine_key("fp16.initial_scale_power"),),
        )  # fmt: skip


def _precision(sides: Sides) -> Iterator[Risk]:
    was, now = sides.old.dtype, sides.new.dtype
    if now == "fp16" and was != "fp16":
        yield Risk(
            "fp16-overflows", "warning",
            f"training goes from {was} to fp16, whose largest number is 65504: losses can overflow",
            "keep bf16 where the GPU has it; else watch loss_scale and skipped steps",
            (engine_key("fp16.enabled"),),
        )  # fmt: skip
    sums = [config.value("data_types.grad_accum_dtype") for config in (sides.old, sides.new)]
    steps = sides.new.value("gradient_accumulation_steps")
    if sums[1] == "bf16" and sums[0] != "bf16" and isinstance(steps, int) and steps > 1:
        yield Risk(
            "gradients-add-up-in-bf16", "warning",
            f"the gradients of {steps} micro-batches are added up in bf16, in {sums[0]} before: small "
            "ones are lost",
            "write data_types.grad_accum_dtype: fp32, with ZeRO stage 1 or 2",
            (engine_key("data_types.grad_accum_dtype"),),
        )  # fmt: skip


def _clipping(sides: Sides) -> Iterator[Risk]:
    was, now = sides.values("gradient_clipping")
    if isinstance(was, int | float) and was > 0 and now == 0:
        yield Risk(
            "no-gradient-clipping", "warning",
            f"gradients are no longer clipped (at {was:g} before): one odd clip can throw the weights off",
            f"write gradient_clipping: {was:g}", (engine_key("gradient_clipping"),),
        )  # fmt: skip


def _rates(sides: Sides) -> Iterator[Risk]:
    scaled = sides.verdicts.learning_rate
    was, now = sides.old.rate, sides.new.rate
    rate_keys = sides.changed(
        engine_key("optimizer.params.lr"), engine_key("scheduler.params.warmup_max_lr"),
        engine_key("scheduler.params.cycle_max_lr"),
    )  # fmt: skip
    if scaled is not None and was is not None and was == now:
        batch = sides.changed(
            *(engine_key(name) for name in (
                "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"))
        )  # fmt: skip
        yield Risk(
            "batch-without-learning-rate", "warning",
            f"a step sees {scaled.batch_ratio:g} times as many samples, at the same learning rate ({was:g})",
            f"for Adam scale by the square root: {scaled.square_root:.3g}; for SGD in proportion: "
            f"{scaled.linear:.3g}", batch,
        )  # fmt: skip
    ratio = 1.0 if scaled is None else max(1.0, scaled.batch_ratio)
    if was and now and now >= MUCH_FASTER * was * ratio:
        yield Risk(
            "learning-rate-up", "warning",
            f"the learning rate goes from {was:g} to {now:g}, {now / was:.3g} times as high",
            "start it as another run, with a warm-up, and watch the gradient norm", rate_keys,
        )  # fmt: skip


def _warmup(sides: Sides) -> Iterator[Risk]:
    was, now = warmup_steps(sides.old), warmup_steps(sides.new)
    if was and was > 2 and (now is None or now <= 2):
        yield Risk(
            "no-warm-up", "warning",
            f"the learning rate no longer rises over {was} steps: it starts at its peak",
            f"keep a warm-up: scheduler.params.warmup_num_steps: {was}",
            sides.changed(engine_key("scheduler.type"), engine_key("scheduler.params.warmup_num_steps")),
        )  # fmt: skip


def _seed(sides: Sides) -> Iterator[Risk]:
    if sides.experiments is None:
        return
    was, now = (experiment.training.seed for experiment in sides.experiments)
    if was != now:
        yield Risk(
            "seed-changed", "warning",
            f"the seed goes from {was} to {now}: other clips, other noise, other initial weights",
            "keep the seed where runs are to be compared", ("train.yaml:training.seed",),
        )  # fmt: skip


def _quantised(sides: Sides) -> Iterator[Risk]:
    for key, bits in (("zero_quantized_gradients", "int4"), ("zero_quantized_weights", "int8")):
        name = f"zero_optimization.{key}"
        was, now = sides.values(name)
        if now is True and was is not True and sides.new.idle(name) is None:
            yield Risk(
                "quantised-exchange", "warning",
                f"{key.removeprefix('zero_quantized_')} are exchanged in {bits}: losses follow the old curve "
                "less closely than other orders of sums do",
                "compare losses over some hundred steps first", (engine_key(name),),
            )  # fmt: skip


NUMERICS: tuple[Rule, ...] = (_rates, _precision, _loss_scale, _clipping, _warmup, _seed, _quantised)
