"""What linear layers in 8 bits do to a model's loss and gradients, beside bf16: the demo model, part-trained.

    python -m tests.benchmarks.low_precision [--steps 60] [--json]

Trains the demo model in fp32 through DeepSpeed's engine, then computes loss and gradients of the same
micro-batches with the same weights in fp32 (the reference), in bf16, and with linear layers of blocks in 8
bits: as the trainer does it, and in the ways that it does not. Errors are |g - reference| / |reference|, of
the gradients of all weights of those layers together and of the one that is furthest off; means over
micro-batches. The first table of docs/low_precision.md.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import socket
import statistics
from typing import Any
from unittest.mock import patch

from tests.benchmarks.precision_consistency import (
    ALONE,
    FACTOR,
    FRAMES,
    SEED,
    SIZE,
    batches,
    config,
    made_clips,
)

BATCHES = 4
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "bf16": ("exact", {}),
    "fp8: e4m3 gradients": ("fp8", {"gradient": "e4m3"}),
    "fp8: e5m2 gradients": ("fp8", {"gradient": "e5m2"}),
    "fp8: e4m3, weights' gradients in bf16": ("fp8", {"gradient": "e4m3", "weight_gradient": False}),
    "int8: weights' gradients in bf16": ("int8", {"weight_gradient": False}),
    "int8: all three products": ("int8", {"weight_gradient": True}),
}


def main() -> None:
    """Prints the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.steps)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    print(
        "| | error of the loss | of gradients | of the layer furthest off | cosine |\n|---|---|---|---|---|"
    )
    for name, row in found.items():
        shown = [f"{row[key]:.{digits}f}" for key, digits in zip(row, (5, 4, 4, 5), strict=True)]
        print(f"| {name} | {' | '.join(shown)} |")


def measure(steps: int) -> dict[str, dict[str, float]]:
    """By way of computing, means over micro-batches."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        os.environ |= {**ALONE, "MASTER_PORT": str(probe.getsockname()[1]), "DS_ACCELERATOR": "cpu"}
    import torch

    from vdsgen.catalog.load import models
    from vdsgen.model.build import build_engine
    from vdsgen.model.latents import SpaceToDepthCodec
    from vdsgen.model.low_precision.layers import compute_blocks_in
    from vdsgen.spec.architecture import Geometry
    from vdsgen.spec.linear_precision import FORMATS

    model, codec, edge = models()["vdt-demo"].sizes, SpaceToDepthCodec(FACTOR), SIZE // FACTOR
    geometry = Geometry(frames=FRAMES, patches=edge**2, text_tokens=0, latent_height=edge, latent_width=edge)
    engine = build_engine(config("fp32"), model, geometry, SEED)
    data = batches([codec.encode(clip) for clip in made_clips()], geometry)
    for _ in range(steps):
        engine.train_step(data)
    trained, seen = copy.deepcopy(engine.engine.module), [next(data) for _ in range(BATCHES)]
    layers = [f"{name}.weight" for name in compute_blocks_in("fp8", copy.deepcopy(trained))]
    exact = [_loss_and_gradients(trained, batch) for batch in seen]
    found = {}
    for name, (kind, changes) in WAYS.items():
        half = copy.deepcopy(trained).to(torch.bfloat16)
        if kind != "exact":
            compute_blocks_in(kind, half)  # type: ignore[arg-type]
        with patch.dict(FORMATS, {kind: FORMATS[kind]._replace(**changes)} if kind != "exact" else {}):  # type: ignore[index]
            own = [_loss_and_gradients(half, batch) for batch in seen]
        each = [_errors(one, reference, layers) for one, reference in zip(own, exact, strict=True)]
        found[name] = {key: statistics.mean(one[key] for one in each) for key in each[0]}
    return found


def _loss_and_gradients(module: Any, batch: Any) -> tuple[float, dict[str, Any]]:
    module.zero_grad()
    loss = module(*batch)
    loss.backward()
    return float(loss.detach()), {
        name: parameter.grad.double()
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def _errors(
    own: tuple[float, dict[str, Any]], reference: tuple[float, dict[str, Any]], layers: list[str]
) -> dict[str, float]:
    import torch

    got, wanted = (torch.cat([x[1][name].flatten() for name in layers]) for x in (own, reference))
    furthest = max(
        float((own[1][name] - reference[1][name]).norm() / reference[1][name].norm()) for name in layers
    )
    return {
        "loss": abs(own[0] / reference[0] - 1),
        "gradient": float((got - wanted).norm() / wanted.norm()),
        "worst": furthest,
        "cosine": float(torch.nn.functional.cosine_similarity(got, wanted, dim=0)),
    }


if __name__ == "__main__":
    main()
