"""Rows made up for tests."""

from __future__ import annotations

import csv
from pathlib import Path

from vdsgen.published.row import COLUMNS, Row, read_rows

GPT = {
    "source_repo_or_paper": "test (real Megatron-LM runs)",
    "model": "Llama3 slice",
    "arch": "gpt",
    "layers": "4",
    "hidden": "1024",
    "heads": "8",
    "seq_len": "2048",
    "precision": "bf16 (fp32 main grads)",
    "optimizer": "Adam (Megatron distributed optimizer)",
    "trainable": "full",
    "grad_ckpt": "none",
    "offload": "none",
    "zero_stage": "1",
    "tp": "2",
    "pp": "1",
    "dp": "4",
    "gpus": "8",
    "gpu_type": "H100 80GB",
    "micro_batch": "1",
    "global_batch": "16",
    "peak_mem_gb": "2.5",
    "mem_kind": "allocated",
    "sec_per_step": "0.05",
    "notes": "GiB; CP=1; sequence parallel on, ffn=3584, kv groups=4, vocab 32000 untied, fused CE",
}


def written(path: Path, *rows: dict[str, str]) -> Path:
    """A file of these rows; cells that they leave out are empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)
    return path


def row(folder: Path, **changes: str) -> Row:
    """GPT with some cells changed."""
    (only,) = read_rows(written(folder / "rows.csv", {**GPT, **changes}))
    return only
