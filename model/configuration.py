"""What a training run is told: its command line, and the rendered directory."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vdsgen.errors import VdsgenError
from vdsgen.model.layers.sequence_parallel import check_sequence_ranks
from vdsgen.model.pipeline import check_fits
from vdsgen.spec.architecture import Geometry, Vdt
from vdsgen.spec.data import ClipSize, Data, size_key
from vdsgen.spec.diffusers_model import DiffusersModel
from vdsgen.spec.geometry import TrainedModel, geometry_of
from vdsgen.spec.rendered import Rendered, read_rendered
from vdsgen.spec.run import SIZE_UNITS, read_json_object
from vdsgen.spec.steps import Steps, parse_steps
from vdsgen.spec.training import Lora


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything that the run follows from."""

    rendered: Rendered
    model: TrainedModel
    geometry: Geometry
    """Of frames x height x width, which samples have too."""
    output: Path
    """The run directory."""
    steps: int
    """Optimizer steps in total, resumed ones included."""
    resume: bool
    measure: bool
    """Only metrics and a summary are wanted: no checkpoint, no sample, no picture of the loss."""
    profile_steps: Steps | None = None
    """That a trace is wanted of."""
    trace_steps: Steps | None = None
    """Of which it is wanted when each rank ran which instruction."""
    save_on_sigterm: bool = False
    """A run that trains finishes its step and saves before that signal ends it."""
    begun_size_units: int | None = None
    """A resumed run's `size_units_a_step`; None: it is this layout's own."""

    @property
    def global_batch_size(self) -> int:
        return int(self.rendered.ds_config["train_batch_size"])

    @property
    def start_from(self) -> Path | None:
        """The folder whose weights a new run begins with; a resumed one goes on with its checkpoint's."""
        folder = self.rendered.experiment.training.start_from
        return None if folder is None or self.resume else Path(folder)

    @property
    def adapters(self) -> Lora | None:
        """Where nothing else trains; None: every weight does."""
        training = self.rendered.experiment.training
        return training.lora if training.method == "lora" else None

    @property
    def micro_batch_size(self) -> int:
        return int(self.rendered.ds_config["train_micro_batch_size_per_gpu"])

    @property
    def sizes(self) -> tuple[ClipSize, ...]:
        """What clips are trained at."""
        return self.rendered.experiment.data.sizes

    @property
    def size_units_a_step(self) -> int:
        """How many times a step clips of another size may come, where they take turns within it: with each
        micro-batch of all ranks, as they were in the layout that the run was begun in."""
        return self.begun_size_units or self.gradient_accumulation_steps

    @property
    def gradient_accumulation_steps(self) -> int:
        return int(self.rendered.ds_config["gradient_accumulation_steps"])


def read_configuration(arguments: Sequence[str] | None, environment: Mapping[str, str]) -> Configuration:
    """Raises VdsgenError where the directory, the run directory or the number of ranks is not right."""
    parsed = parse_arguments(arguments)
    rendered = read_rendered(parsed.plan_dir)
    model = rendered.experiment.model
    if not isinstance(model, Vdt | DiffusersModel):
        raise VdsgenError(
            f"{parsed.plan_dir}/train.yaml: model is {model!r}, should be written out",
            remedy="render the directory again: vdsgen generate",
        )
    data = rendered.experiment.data
    sharing = rendered.layout.sequence_parallel_size
    geometries = [_fitting_geometry(data, model, place, sharing) for place in range(len(data.sizes))]
    _check_ranks(rendered, environment)
    _check_output(parsed.output, resume=parsed.resume)
    return Configuration(
        rendered=rendered,
        model=model,
        geometry=geometries[0],
        output=parsed.output,
        steps=parsed.steps or rendered.experiment.training.steps,
        resume=parsed.resume,
        measure=parsed.measure,
        save_on_sigterm=parsed.save_on_sigterm,
        profile_steps=None if parsed.profile_steps is None else parse_steps(parsed.profile_steps),
        trace_steps=None if parsed.trace_steps is None else parse_steps(parsed.trace_steps),
        begun_size_units=_begun_size_units(parsed.output, rendered) if parsed.resume else None,
    )


def _begun_size_units(run: Path, rendered: Rendered) -> int | None:
    """Raises VdsgenError where micro-batches of this layout would mix what one of the first layout had of
    one size."""
    path, steps = run / "run.json", int(rendered.ds_config["gradient_accumulation_steps"])
    units = read_json_object(path).get(SIZE_UNITS) if path.is_file() else None
    if not isinstance(units, int) or rendered.experiment.data.bucket_every != "micro_batch":
        return None
    if units < 1 or steps % units:
        raise VdsgenError(
            f"{path} says that the sizes of clips take {units} turns a step; gradient_accumulation_steps "
            f"({steps}) is no multiple of it: a micro-batch would hold clips of several sizes",
            remedy=f"plan again with constraints.gradient_accumulation_steps a multiple of {units}",
        )
    return units


def _fitting_geometry(data: Data, model: TrainedModel, place: int, sharing: int) -> Geometry:
    """Of the size at `place` in `Data.sizes`. Raises VdsgenError where it does not fit the model, or so many
    ranks cannot share its clips."""
    try:
        geometry = geometry_of(data, model, data.sizes[place])
        if isinstance(model, Vdt):
            check_fits(model, geometry)
            check_sequence_ranks(model, geometry, sharing)
    except (ValueError, VdsgenError) as error:
        at = size_key(place)
        raise VdsgenError(
            f"train.yaml: {f'data.{at}' if at else 'data'} ({data.sizes[place]}): {error}",
            remedy=None if isinstance(error, VdsgenError) else "render the directory again: vdsgen generate",
        ) from error
    return geometry


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Exits with code 2 and usage where the command line is not right, as argparse does."""
    parser = argparse.ArgumentParser(
        prog="vdsgen.model.train",
        description="Train what a rendered directory says; one process a rank, started by `vdsgen launch` or "
        "`deepspeed --module`.",
    )
    parser.add_argument("--plan-dir", type=Path, required=True, help="rendered directory")
    parser.add_argument("--output", type=Path, required=True, help="run directory")
    parser.add_argument(
        "--steps",
        type=_positive,
        help="optimizer steps in total, resumed ones included; default: train.yaml's",
    )
    parser.add_argument("--resume", action="store_true", help="continue from the last complete checkpoint")
    parser.add_argument(
        "--measure", action="store_true", help="write metrics and a summary: no checkpoint, no sample"
    )
    parser.add_argument(
        "--profile-steps", metavar="FIRST:LAST", help="write a trace of these steps, a rank a file"
    )
    parser.add_argument(
        "--trace-steps",
        metavar="FIRST:LAST",
        help="write when each rank runs which instruction in these steps",
    )
    parser.add_argument(
        "--save-on-sigterm",
        action="store_true",
        help="on SIGTERM finish the step and save, then exit with 143: for schedulers, which start it again",
    )
    parser.add_argument("--local_rank", type=int, help="set by the launcher; LOCAL_RANK says the same")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive whole number")
    return int(text)


def _check_ranks(rendered: Rendered, environment: Mapping[str, str]) -> None:
    needed, started = rendered.layout.world_size, environment.get("WORLD_SIZE")
    if started != str(needed):
        how = "is not started by a launcher" if started is None else f"runs on {started} ranks"
        raise VdsgenError(
            f"{rendered.path}/ds_config.json needs {needed} ranks ({rendered.layout}); this process {how}",
            remedy=f"vdsgen launch {rendered.path} --output RUN starts that many",
        )


def _check_output(output: Path, *, resume: bool) -> None:
    """The launcher makes RUN/logs before: only what a run itself writes counts."""
    written = [name for name in ("metrics.jsonl", "checkpoints") if (output / name).exists()]
    if written and not resume:
        raise VdsgenError(
            f"{output} holds an earlier run ({', '.join(written)})",
            remedy="choose a new --output, or add --resume to continue that run",
        )
