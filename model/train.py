"""The training entrypoint: one process a rank, started by `vdsgen launch` or by DeepSpeed's own command:

    deepspeed --num_gpus 4 --module vdsgen.model.train --plan-dir DIR --output RUN [--steps N] [--resume]
        [--measure] [--profile-steps FIRST:LAST] [--save-on-sigterm]

Every rank runs all of this file. DIR/ds_config.json says how the engine runs, DIR/train.yaml what is
trained; plan.json is only compared with what is measured. `--steps N` ends the run at step N in total;
the learning rate's schedule stays that of ds_config.json. `--measure` is for short runs whose speed and
memory are the result: nothing but metrics and the summary is written.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack

from deepspeed import comm as dist
from deepspeed.accelerator import get_accelerator

from vdsgen.errors import VdsgenError
from vdsgen.files import write_atomically
from vdsgen.model import checkpoint
from vdsgen.model.build import build_engine
from vdsgen.model.cache.ranks import fill_together
from vdsgen.model.clips import order_of, share_of, shared_index
from vdsgen.model.configuration import Configuration, read_configuration
from vdsgen.model.console import configure_logging, is_first_rank, say, say_first
from vdsgen.model.curves import LOSS_CURVE, draw_loss
from vdsgen.model.data.buckets import bucket_text
from vdsgen.model.data.index import Index
from vdsgen.model.data.loader import Batches, batches_for
from vdsgen.model.data.order import SizeOrder
from vdsgen.model.data.waiting import Waiting
from vdsgen.model.devices import take_planned_device
from vdsgen.model.distributed import init_distributed
from vdsgen.model.engine import TrainingEngine
from vdsgen.model.heartbeat import HEART, write_stacks_when_asked
from vdsgen.model.interludes import Interludes
from vdsgen.model.launcher import end_with_launcher
from vdsgen.model.leftovers import remove_half_written
from vdsgen.model.memory import PeakMemory
from vdsgen.model.metrics import DivergenceAlarm, StepMetrics, read_metrics
from vdsgen.model.monitoring.events import handed_over, in_run_directory
from vdsgen.model.monitoring.monitor import RunMonitor
from vdsgen.model.monitoring.report import opening_text
from vdsgen.model.record import RunLog, record_run
from vdsgen.model.sample import SampleFiles, write_sample
from vdsgen.model.saves import Saves, read_saves
from vdsgen.model.sources import AnySource, open_source
from vdsgen.model.stopping import TERMINATED, TERMINATION, Wish
from vdsgen.model.summary import Artefacts, summarise, summary_text
from vdsgen.model.validation import HeldOut, held_out_of, read_validation, shared_held_out
from vdsgen.spec.checkpoints import CHECKPOINTS, tag_of
from vdsgen.spec.heartbeat import STEP_PHASE
from vdsgen.spec.plan import Plan


def train(configuration: Configuration) -> int:
    """From the rendered directory to the closing summary. Returns the exit code."""
    rendered, experiment = configuration.rendered, configuration.rendered.experiment
    take_planned_device(rendered.plan.nodes, os.environ)
    HEART.begin("meeting the other ranks")
    init_distributed()
    HEART.begin("looking for clips")
    index, held_out_index = shared_held_out(experiment, shared_index(experiment.data))
    device = get_accelerator().current_device_name()
    if configuration.measure:
        held_out_index = None
    HEART.begin("filling the cache")
    cached = fill_together(experiment, index, held_out_index)
    HEART.begin("opening clips")
    source = None
    if rendered.layout.reads_clips(dist.get_rank()):
        source = open_source(experiment, index, device, None if cached is None else cached.training)
    held_out = None
    if held_out_index is not None:
        showing = (
            open_source(experiment, held_out_index, device, cached.held_out) if source and cached else source
        )
        held_out = held_out_of(experiment, held_out_index, showing, device)
    memory = PeakMemory(len(configuration.sizes))
    HEART.begin("building the engine")
    engine = build_engine(
        in_run_directory(rendered.ds_config, configuration.output),
        configuration.model,
        configuration.geometry,
        experiment.training.seed,
        configuration.adapters,
        configuration.start_from,
    )
    with handed_over(engine.engine.monitor):
        return train_with(configuration, engine, index, source, held_out, memory)


def train_with(
    configuration: Configuration,
    engine: TrainingEngine,
    index: Index,
    source: AnySource | None,
    held_out: HeldOut | None,
    memory: PeakMemory,
) -> int:
    """From the built engine to the closing summary. Returns the exit code."""
    rendered = configuration.rendered
    HEART.begin("reading a checkpoint" if configuration.resume else "preparing the first step")
    HEART.watch_steps(engine.instruments.clock)
    first_step = checkpoint.resume(engine, configuration.output, rendered) if configuration.resume else 0
    if is_first_rank() and configuration.resume:
        remove_half_written(configuration.output)
    record_run(configuration, index, first_step)
    if configuration.save_on_sigterm:
        # Not before: what comes earlier may take long, and leaves nothing to save.
        TERMINATION.listen()
    say_first(
        f"Training {trained_parameters(rendered.plan)} on {len(index.entries)} clips, "
        f"{configuration.global_batch_size} a step, from step {first_step + 1} to {configuration.steps}."
    )
    order = order_of(configuration, index)
    say_first(opening_text(rendered.plan, on_processor=memory.on_cpu))
    try:
        last_step, wish = run_steps(configuration, engine, source, held_out, memory, order, first_step)
    finally:
        if is_first_rank() and not configuration.measure:
            draw_loss(configuration.output)
    sample = None
    if not configuration.measure and last_step >= configuration.steps:
        say_first("Sampling a video.")
        HEART.begin("sampling a video", last_step)
        with engine.averaged():
            sample = write_sample(configuration, engine, source, step=max(first_step, configuration.steps))
    HEART.begin("summing up", last_step)
    if is_first_rank():
        conclude(configuration, sample, memory)
    dist.barrier()
    dist.destroy_process_group()
    return TERMINATED if wish is Wish.STOP_FOR_NOW and last_step < configuration.steps else 0


def trained_parameters(plan: Plan) -> str:
    """`1,418,996,800 parameters`, or how many of them, where the others stay as they are."""
    model = plan.model
    if model.trainable_parameters == model.parameters:
        return f"{model.parameters:,} parameters"
    return f"{model.trainable_parameters:,} of {model.parameters:,} parameters"


def run_steps(
    configuration: Configuration,
    engine: TrainingEngine,
    source: AnySource | None,
    held_out: HeldOut | None,
    memory: PeakMemory,
    order: SizeOrder,
    first_step: int,
) -> tuple[int, Wish]:
    """Trains from `first_step` to the configured one, with checkpoints, held-out losses and samples on the
    way and at the end unless it only measures. Returns the last step, and whether that is an earlier one
    because somebody wished it."""
    rendered, saving = configuration.rendered, configuration.rendered.experiment.training.saving
    alarm = DivergenceAlarm()
    monitor = RunMonitor(configuration, engine, first_step)
    with ExitStack() as open_files:
        batches = log = None
        if source is not None:
            share = share_of(configuration, engine)
            batches = open_files.enter_context(batches_for(source, share, start_step=first_step))
        if is_first_rank():
            log = open_files.enter_context(RunLog(configuration, first_step, engine.engine))
        saves = open_files.enter_context(Saves(engine, configuration.output, rendered, saving, first_step))
        interludes = Interludes(configuration, engine, source, held_out, memory, log, first_step)
        memory.training_begins()
        interludes.after(first_step)
        for step in range(first_step + 1, configuration.steps + 1):
            metrics = one_step(configuration, engine, batches, memory, monitor, order, step)
            if log is not None:
                log.append(metrics)
            monitor.check(metrics)
            saves.after_step()
            if warning := alarm.check(metrics):
                say_first(f"warning: {warning}")
            stops = monitor.wish is not Wish.GO_ON
            due = step % saving.interval_steps == 0 or step == configuration.steps or stops
            # Weights that give no finite loss are not worth the place of those that did.
            if due and not configuration.measure and math.isfinite(metrics.loss):
                HEART.begin("saving a checkpoint", step)
                saves.save(step)
            if stops:
                saves.finish()
                why = "as was asked" if monitor.wish is Wish.STOP else "because of SIGTERM"
                say_first(f"Stopped after step {step}, {why}.")
                return step, monitor.wish
            interludes.after(step)
        HEART.begin("saving a checkpoint", configuration.steps)
        saves.finish()
    return max(first_step, configuration.steps), Wish.GO_ON


def one_step(
    configuration: Configuration,
    engine: TrainingEngine,
    batches: Batches | None,
    memory: PeakMemory,
    monitor: RunMonitor,
    order: SizeOrder,
    step: int,
) -> StepMetrics:
    """One optimizer step, measured; the same metrics on every rank."""
    learning_rate, loss_scale = engine.learning_rate, engine.loss_scale
    before = Waiting() if batches is None else batches.waiting.copy()
    HEART.begin(STEP_PHASE, step)
    monitor.step_begins(step)
    began = time.perf_counter()
    sizes = order.of_step(step - 1, configuration.gradient_accumulation_steps)
    mine = iter(()) if batches is None else map(engine.own_rows, batches)
    loss = engine.train_step(mine, sizes)
    seconds = time.perf_counter() - began
    HEART.begin("telling each other what was measured", step)
    waited = Waiting() if batches is None else batches.waiting.since(before)
    rows = monitor.gather(step, memory, seconds, waited.whole_numbers())
    HEART.begin("between steps", step)
    waits = [Waiting.of_whole_numbers(row.counts) for row in rows]
    longest = max(waits, key=lambda rank: rank.seconds)
    step_seconds = max(row.step_seconds for row in rows)
    skipped = monitor.skipped()
    return StepMetrics(
        step=step,
        loss=loss,
        grad_norm=engine.global_grad_norm,
        loss_scale=loss_scale,
        learning_rate=learning_rate,
        step_seconds=step_seconds,
        data_seconds=longest.seconds,
        samples_per_second=configuration.global_batch_size / step_seconds,
        peak_memory_bytes=[row.peak_bytes for row in rows],
        bucket=bucket_text(configuration.sizes, sizes),
        data_wait=longest.waits(),
        loader=Waiting.total(waits).loader(),
        overflow=skipped if engine.engine.fp16_enabled() else None,
        skipped_steps=int(engine.engine.skipped_steps),
        held_memory_bytes=[row.held_bytes for row in rows],
        stages=monitor.stages(rows),
    )


def conclude(configuration: Configuration, sample: SampleFiles | None, memory: PeakMemory) -> None:
    """Rank 0: the summary, for people and for programs. `sample` is None where none is wanted."""
    run = configuration.output
    metrics = read_metrics(run)
    saved = run / CHECKPOINTS / tag_of(metrics[-1]["step"])
    artefacts = Artefacts(
        loss_curve=None if configuration.measure else run / LOSS_CURVE,
        sample_video=None if sample is None else sample.video,
        contact_sheet=None if sample is None else sample.contact_sheet,
        consistency=None if sample is None else sample.consistency,
        checkpoint=saved if saved.is_dir() else None,
    )
    summary = summarise(configuration, metrics, artefacts, memory, read_validation(run), read_saves(run))
    write_atomically(run / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    say(summary_text(summary))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0; 2 for bad input; 4 for a loss that has diverged; 143 for a run that SIGTERM has ended,
    after a checkpoint; 1 for everything else."""
    configure_logging()
    write_stacks_when_asked()
    end_with_launcher(os.environ)
    try:
        configuration = read_configuration(arguments, os.environ)
    except VdsgenError as error:
        say_first(f"error: {error}")
        return error.exit_code
    HEART.start(configuration.output, os.environ)
    try:
        code = train(configuration)
        HEART.end()
    except VdsgenError as error:
        say(f"error: {error}")
        return error.exit_code
    except Exception:
        traceback.print_exc()
        return 1
    return code


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # At once: taking an interpreter full of torch apart takes seconds, and a process group whose other ranks
    # are still training may take minutes. Files are closed and the loader's processes end by themselves.
    os._exit(code)
