"""Readers that have no command of their own: what training, resuming and progress read, called directly."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

from vdsgen.errors import VdsgenError
from vdsgen.launch.progress import Display
from vdsgen.spec.checkpoints import damage, read_checkpoints


def checkpoints(run: Path) -> None:
    """As a resumed run looks for the last sound one."""
    complete, _ = read_checkpoints(run)
    for folder, record in complete.items():
        for share in range(2):
            damage(folder, record, share, 2)


def metrics(run: Path) -> None:
    """As a resumed run, a launcher's terminal and `vdsgen ablate` read them."""
    from vdsgen.ablate.measure import Task, ended
    from vdsgen.launch.run import Outcome
    from vdsgen.launch.starts import last_step
    from vdsgen.model.json_lines import read_lines
    from vdsgen.spec.heartbeat import read_beat
    from vdsgen.spec.universal import read_universal

    read_lines(run / "metrics.jsonl")
    display = Display(_Terminal(), run / "metrics.jsonl", 6)
    display._tail._position = 0
    display.refresh()
    display.close()
    last_step(run)
    read_beat(run / "alarms.jsonl")
    read_universal(run)
    task = Task("p", 1, run.parent / "plan", run, 3)
    ended(task, Outcome(0, None, True, None), [], 1.0, killed_for_memory=False)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def states(path: Path) -> None:
    from vdsgen.model.export.stored import load

    load(path)


def cache(folder: Path) -> None:
    from vdsgen.model.cache.content import Contents
    from vdsgen.model.cache.shards import DamageError, ShardFile
    from vdsgen.model.cache.store import open_store

    store = open_store(folder, make=False)
    store.verify(store.manifests, Contents(folder, remembered=False))
    for key in sorted(store.keys()):
        place = store.located(key)
        try:
            ShardFile(store.file(place.shard)).read(key, place.crc)
        except DamageError:
            continue


def caption(video: Path) -> None:
    from vdsgen.model.data.captions import read_caption

    read_caption(video)


READERS: Mapping[str, Callable[[Path], None]] = {
    "@checkpoints": checkpoints,
    "@metrics": metrics,
    "@states": states,
    "@cache": cache,
    "@caption": caption,
}


def call(name: str, path: str) -> tuple[int, str]:
    """As the command line would end: exit code, and what it says."""
    try:
        READERS[name](Path(path))
    except VdsgenError as error:
        return error.exit_code, f"error: {error}"
    except OSError as error:
        if error.filename is None:
            raise
        return 2, f"error: {error.filename}: {error.strerror}"
    return 0, ""
