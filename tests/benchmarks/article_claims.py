"""Two claims of the article, measured with the real engine on this processor:

    python -m tests.benchmarks.article_claims --out docs/measured/article_claims.json

* A3: 48 layers, a checkpoint every 7: 85 % less activation memory for 33 % more time.
* A8: micro-batching brings a pipeline's efficiency to 85-90 %: two stages, a core each, against one process
  on one core, by micro-batches a step.

Takes some minutes on two idle cores. `docs/article.md` holds the figures beside the article's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tests.model.ranks import run_ranks
from vdsgen.files import write_atomically
from vdsgen.spec.architecture import Geometry, Vdt

BLOCKS = 48
INTERVALS = (0, 1, 3, 7)
MICRO_BATCHES = (1, 2, 4, 8, 16)
ROUNDS = 7
GEOMETRY = Geometry(frames=8, patches=64, text_tokens=16, latent_height=16, latent_width=16)


def model(blocks: int) -> Vdt:
    return Vdt(
        in_channels=4,
        patch_size=2,
        hidden_size=128,
        depth=blocks,
        heads=4,
        mlp_hidden_size=384,
        condition="text",
        text_hidden_size=64,
    )


def config(*, interval: int = 0, accumulation: int = 1, partition: tuple[int, ...]) -> dict[str, Any]:
    """As a rendered ds_config.json has it: fp32, no ZeRO."""
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": accumulation,
        "steps_per_print": None,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "torch_adam": True, "fused": True}},
        "pipeline": {
            "stages": len(partition) - 1,
            "partition": list(partition),
            "activation_checkpoint_interval": interval,
            "use_reentrant": False,
        },
    }


def measure(ranks: int, blocks: int, configs: list[dict[str, Any]], *, weigh: bool) -> list[dict[str, Any]]:
    """The first rank's answers."""
    job = {
        "model": model(blocks).model_dump(),
        "geometry": GEOMETRY._asdict(),
        "cases": [{"config": one} for one in configs],
        "rounds": ROUNDS,
        "weigh": weigh,
    }
    answers: list[dict[str, Any]] = run_ranks("tests.benchmarks.article_rank", ranks, job, 1800)[0]
    return answers


def checkpointing() -> list[dict[str, Any]]:
    """Activations and time by checkpoint interval, on one process."""
    partition = (0, BLOCKS + 2)
    configs = [config(interval=interval, partition=partition) for interval in INTERVALS]
    answers = measure(1, BLOCKS, configs, weigh=True)
    return [{"interval": interval, **answer} for interval, answer in zip(INTERVALS, answers, strict=True)]


def pipeline() -> list[dict[str, Any]]:
    """Efficiency of two stages: the time of one process on one core, over two, over the pipeline's."""
    blocks = 14
    half = (blocks + 2) // 2
    whole, halves = (0, blocks + 2), (0, half, blocks + 2)
    alone = measure(
        1, blocks, [config(accumulation=count, partition=whole) for count in MICRO_BATCHES], weigh=False
    )
    both = measure(
        2, blocks, [config(accumulation=count, partition=halves) for count in MICRO_BATCHES], weigh=False
    )
    return [
        {
            "micro_batches": count,
            "one_process_seconds": single["step_seconds"],
            "two_stages_seconds": staged["step_seconds"],
            "efficiency": single["step_seconds"] / 2 / staged["step_seconds"],
            "ideal_efficiency": count / (count + 1),
        }
        for count, single, staged in zip(MICRO_BATCHES, alone, both, strict=True)
    ]


def main() -> None:
    """Measures both, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    found = {"blocks": BLOCKS, "checkpointing": checkpointing(), "pipeline": pipeline()}
    write_atomically(out, (json.dumps(found, indent=2) + "\n").encode())
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
