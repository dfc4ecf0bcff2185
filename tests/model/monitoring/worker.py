"""One rank of a monitoring test: trains a tiny model under a pipeline, with faults put in on purpose.

Reads a job (JSON) from standard input: {"cases": [{"config", "steps", "faults"}]}; a fault is {"step",
"layer", "where"}: in that step alone, the named layer's output (`output`), the gradient that reaches it
(`backward`), or one of its weights' gradients (`weights`) is infinite.
Prints as its last line a list with an answer a case.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

import torch
from deepspeed.accelerator import get_accelerator
from torch import Tensor, nn

from tests.model.layout_worker import GEOMETRY, MODEL, SEED, batches, start_nowhere_at_zero, weights
from vdsgen.model import engine as engines
from vdsgen.model.build import build_engine
from vdsgen.model.metrics import DivergedError
from vdsgen.model.monitoring.instruments import Instruments
from vdsgen.model.monitoring.layers import layers_of
from vdsgen.model.monitoring.where import first_finding


class Faults:
    """Strikes in the step that `step` is set to; put in before anything watches."""

    def __init__(self, faults: list[dict[str, Any]]) -> None:
        self.step = 0
        self.faults = faults

    def instruments(self, engine: Any) -> Instruments:
        for index, layer in zip(*layers_of(engine.module), strict=True):
            for fault in self.faults:
                if fault["layer"] == index:
                    self._put(layer, fault)
        return Instruments(engine)

    def _put(self, layer: nn.Module, fault: dict[str, Any]) -> None:
        def struck(gradient: Tensor) -> Tensor:
            return torch.full_like(gradient, torch.inf) if self.step == fault["step"] else gradient

        def output(_: nn.Module, __: Any, outputs: Any) -> Any:
            if self.step != fault["step"]:
                return outputs
            first, *others = outputs if isinstance(outputs, tuple) else (outputs,)
            broken = first + torch.inf
            return (broken, *others) if isinstance(outputs, tuple) else broken

        if fault["where"] == "weights":
            next(layer.parameters()).register_hook(struck)  # type: ignore[no-untyped-call]
        elif fault["where"] == "output":
            layer.register_forward_hook(output)
        else:
            layer.register_full_backward_pre_hook(lambda _, gradients: (struck(gradients[0]), *gradients[1:]))  # type: ignore[index]


def run_case(case: dict[str, Any]) -> dict[str, Any]:
    config = case["config"]
    get_accelerator().is_fp16_supported = lambda: True
    faults = Faults(case.get("faults", []))
    engines.Instruments = faults.instruments  # type: ignore[attr-defined, assignment]
    engine = build_engine(config, MODEL, GEOMETRY, SEED)
    data = batches(
        engine, config["train_micro_batch_size_per_gpu"], config["gradient_accumulation_steps"], GEOMETRY
    )
    steps, ended = [], None
    for step in range(1, case["steps"] + 1):
        faults.step = step
        before, scale = weights(engine), engine.loss_scale
        try:
            loss = engine.train_step(data)
        except DivergedError as error:
            ended = str(error)
            break
        watch = engine.instruments.layers
        finding = first_finding(watch, engine.device)
        steps.append(
            {
                "loss": loss,
                "grad_norm": engine.global_grad_norm,
                "scale": scale,
                "scale_after": engine.loss_scale,
                "skipped": int(engine.engine.skipped_steps),
                "moved": weights(engine) != before,
                "finding": None if finding is None else [finding.what, finding.layer, finding.rank],
                "squares": watch.gradient_squares(),
                "seconds": engine.instruments.seconds,
            }
        )
        engine.instruments.suspicious = finding is not None
    return {
        "steps": steps,
        "ended": ended,
        "optimizer": type(engine.engine.optimizer).__name__,
        "weight_dtypes": dtypes(engine.engine.module.parameters()),
        **optimizer_dtypes(engine.engine.optimizer),
    }


def dtypes(tensors: Iterable[Tensor]) -> list[str]:
    return sorted({str(tensor.dtype) for tensor in tensors if tensor.is_floating_point()})


def optimizer_dtypes(optimizer: Any) -> dict[str, list[str]]:
    """Of the weights that the optimizer moves, and of what it remembers of each."""
    inner = optimizer.optimizer
    states = [value for state in inner.state.values() for value in state.values()]
    return {
        "master_dtypes": dtypes(p for group in inner.param_groups for p in group["params"]),
        "state_dtypes": dtypes(value for value in states if isinstance(value, Tensor)),
    }


def main() -> None:
    job = json.load(sys.stdin)
    torch.set_num_threads(1)
    start_nowhere_at_zero()
    results = [run_case(case) for case in job["cases"]]
    print(flush=True)
    print(json.dumps(results), flush=True)


if __name__ == "__main__":
    main()
