"""`vdsgen export`: a checkpoint's weights as a folder that other programs load."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("source", metavar="RUN_OR_CHECKPOINT", type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, metavar="DIR", type=click.Path(path_type=Path), help="New folder.")
@click.option("--ema", is_flag=True, help="The weights' average (training.ema) in their place.")
@click.option(
    "--rendered",
    metavar="DIR",
    type=click.Path(exists=True, path_type=Path),
    help="Directory that was trained from, where it has moved since.",
)
def command(source: Path, out: Path, ema: bool, rendered: Path | None) -> None:
    """Write the weights of RUN_OR_CHECKPOINT (a run's last complete checkpoint) to the new folder DIR.

    A model of diffusers becomes a folder that its class loads with `from_pretrained`, trained adapters one
    that `load_lora_adapter` loads, the bundled family one for `training.start_from`. Checkpoints of any
    layout are read, on any machine, without a GPU; no more than 5 GB are in memory at a time.
    """
    from vdsgen.model.export.export import export

    done = export(source, out, ema=ema, rendered=rendered)
    what = "adapters" if done.kind == "adapters" else "weights"
    of = "averaged " if done.averaged else ""
    click.echo(f"{done.out}: {of}{what} after {done.step} steps, {done.parameters:,} elements stored there:")
    for path in done.files:
        click.echo(f"  {path.name}  {path.stat().st_size / 2**20:.1f} MiB")
