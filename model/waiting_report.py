"""What a run waited for when it waited for clips, in figures and in words with a remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vdsgen.model.data.waiting import WAITS

WORTH_A_REMEDY = 0.02
"""Share of the step."""

NAMES = {
    "reading_seconds": "disk",
    "decoding_seconds": "decoding",
    "encoding_seconds": "encoding",
    "hand_over_seconds": "hand-over",
}


def waiting_figures(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of some steps: the share of waiting that each part has, and what one sample took a loader. Steps of
    runs that did not tell are left out; empty where all are."""
    told = [step for step in metrics if step.get("data_wait") and step.get("loader")]
    if not told:
        return {}
    waits = {name: sum(step["data_wait"][name] for step in told) for name in WAITS}
    loader = {name: sum(step["loader"][name] for step in told) for name in told[0]["loader"]}
    whole, samples = sum(waits.values()), max(1, loader["samples"])
    return {
        "shares": {NAMES[name]: seconds / whole if whole else 0.0 for name, seconds in waits.items()},
        "sample": {
            "read_bytes": loader["read_bytes"] / samples,
            "reading_seconds": loader["reading_seconds"] / samples,
            "decoding_seconds": loader["decoding_seconds"] / samples,
            "encoding_seconds": loader["encoding_seconds"] / samples,
        },
    }


def waiting_lines(fraction: float, figures: Mapping[str, Any], *, cached: bool) -> list[str]:
    """`fraction`: of the step that was waited. The cause and its remedy where it is worth one."""
    lines = [f"Waiting for clips: {fraction:.1%} of the step"]
    if not figures:
        return lines
    shares: Mapping[str, float] = figures["shares"]
    if fraction >= WORTH_A_REMEDY:
        parts = ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share >= 0.005)
        cause = max(shares, key=lambda name: shares[name])
        lines.append(f"  of that {parts}")
        lines.append(f"  {_cause(cause, figures['sample'])}")
        lines.append(f"  -> {_remedy(cause, cached=cached)}")
    return lines


def _cause(cause: str, sample: Mapping[str, float]) -> str:
    if cause == "disk":
        seconds, read_bytes = sample["reading_seconds"], sample["read_bytes"]
        rate = read_bytes / 1e6 / seconds if seconds else 0.0
        return (
            f"disk: {_milliseconds(seconds)} a sample at {rate:.1f} MB/s ({read_bytes / 1e6:.2f} MB a sample)"
        )
    if cause == "hand-over":
        made = sample["reading_seconds"] + sample["decoding_seconds"] + sample["encoding_seconds"]
        return f"hand-over: samples were made in time ({_milliseconds(made)} each), and reached training late"
    return f"{cause}: {_milliseconds(sample[f'{cause}_seconds'])} a sample"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"


def _remedy(cause: str, *, cached: bool) -> str:
    if cause == "disk":
        if cached:
            return (
                "put data.cache.folder on a faster disk, or more data.workers to read several samples at once"
            )
        return "put the clips on a faster disk, or set data.cache there: latents are smaller than most videos"
    if cause == "hand-over":
        return "more processes run than there are cores: fewer data.workers, or fewer ranks a machine"
    if cached:
        return "more data.workers"
    return "set data.cache: clips are then decoded and encoded once; or more data.workers"
