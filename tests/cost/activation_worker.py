"""The trainer's own engine around the bundled model on this rank: reports the bytes alive over a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from tests.cost.engine_worker import checksum, forget_groups, watch
from vdsgen.model.build import build_engine
from vdsgen.model.engine import TrainingEngine
from vdsgen.model.pipeline import Batch
from vdsgen.profile.engine_bytes import own_offloaded_activations
from vdsgen.profile.live_bytes import HOST, LiveBytes
from vdsgen.spec.architecture import Geometry, Vdt


def measure_activations(case: dict[str, Any]) -> dict[str, Any]:
    """Bytes of a second step: who owned how much when its gradients were there, and the peaks while
    micro-batches ran, while gradients were reduced and while the optimizer stepped."""
    model, geometry = Vdt(**case["model"]), Geometry(**case["geometry"])
    tracker = LiveBytes()
    with tracker:
        training = build_engine(case["config"], model, geometry, seed=0)
        own_offloaded_activations(training.engine, tracker)
        seen = watch(training.engine, tracker)
        noted = note_instructions(training, tracker)
        data = batches(case, model, geometry)
        training.train_step(data)
        tracker.forget_peaks()
        noted.clear()
        with tracker.phase("compute"):
            training.train_step(data)
    states = seen["bytes"]
    engine = training.engine
    result = {
        "stage": engine.stage_id if training.pipelined else 0,
        "optimizer": type(engine.optimizer).__name__,
        "shapes": [list(getattr(p, "ds_shape", p.shape)) for p in engine.module.parameters()],
        "peak": tracker.peak_of("compute"),
        "activations_on_host": tracker.peak_of("compute", owner=HOST),
        "peaks": {name: tracker.peak_of(name) for name in ("compute", "reduce", "step")},
        "states": states["parameters"] + states["gradients"] + states["optimizer"],
        "instructions": noted,
        "checksum": checksum(engine),
        **seen,
    }
    engine.destroy()
    forget_groups()
    return result


def note_instructions(training: TrainingEngine, tracker: LiveBytes) -> list[tuple[str, int]]:
    """Notes each of the engine's instructions with the most bytes alive while it ran; returns where the notes
    go. In one process these are the engine's methods; what runs within another (the reduction in the last
    backward) comes before it, and does not count for it."""
    engine, noted = training.engine, []

    def noting(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            outer, tracker.peak_bytes = tracker.peak_bytes, tracker.live_bytes
            try:
                return original(*args, **kwargs)
            finally:
                noted.append((name, tracker.peak_bytes))
                tracker.peak_bytes = outer

        return run

    if training.pipelined:
        engine._INSTRUCTION_MAP = {
            kind: noting(kind.__name__, handler) for kind, handler in engine._INSTRUCTION_MAP.items()
        }
    else:
        engine.forward = noting("ForwardPass", engine.forward)
        engine.backward = noting("BackwardPass", engine.backward)
        engine.allreduce_gradients = noting("ReduceGrads", engine.allreduce_gradients)
        engine._take_model_step = noting("OptimizerStep", engine._take_model_step)
    return noted


def batches(case: dict[str, Any], model: Vdt, geometry: Geometry) -> Iterator[Batch]:
    batch = case["config"]["train_micro_batch_size_per_gpu"]
    shape = (batch, model.in_channels, geometry.frames, geometry.latent_height, geometry.latent_width)
    generator = torch.Generator().manual_seed(1)
    while True:
        latents = torch.randn(shape, generator=generator)
        inputs: tuple[torch.Tensor, ...] = (latents, torch.rand(batch, generator=generator))
        if model.condition == "text":
            text = (batch, geometry.text_tokens, model.text_hidden_size)
            inputs = (*inputs, torch.randn(text, generator=generator))
        yield inputs, torch.randn(shape, generator=generator)
