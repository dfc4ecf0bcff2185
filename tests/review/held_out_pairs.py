"""The held-out pairs: configs that differ in something whose effect is known, from the engine's code, from
papers or from really training both sides (tests/campaigns/verdicts.py). None of it was written from what
`vdsgen diff` says.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from click.testing import CliRunner

from vdsgen.cli.generate import command as generate

FOLDER = Path(__file__).with_name("held_out")
PLAIN = ("plain_same", "plain_changes")
RENDERED = ("experiments",)
KEYS = frozenset(
    {
        "name", "what", "source", "run", "old", "new", "same", "touches", "only", "loss_curve",
        "loss_curve_because", "resume", "resume_because", "learning_rate", "batch_ratio", "risk", "memory",
        "time", "experiment", "lab", "edit", "drop_pins",
    }
)  # fmt: skip
"""All that a pair may say."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One pair: what it is, where its truth is from, and what is true."""

    kind: str
    """The file that it is in."""
    said: Mapping[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.said.get(key)

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.said['name']}"

    @property
    def same(self) -> bool:
        """Nothing that counts differs."""
        return self.said.get("same") is True

    @property
    def is_inert(self) -> bool:
        """Something differs that does nothing: a difference, or none."""
        return self.said.get("same") == "either"

    @property
    def is_plain(self) -> bool:
        return self.kind in PLAIN

    def allowed(self, key: str) -> tuple[str, ...]:
        """Of a verdict: the truth; several where it depends on what the config does not say."""
        value = self.said.get(key, ())
        return (value,) if isinstance(value, str) else tuple(value)


def held_out() -> Iterator[HeldOut]:
    for kind in (*PLAIN, *RENDERED):
        for said in yaml.safe_load((FOLDER / f"{kind}.yaml").read_text()):
            assert said.keys() <= KEYS, f"{said['name']}: {sorted(said.keys() - KEYS)}"
            yield HeldOut(kind, said)


def written(pair: HeldOut, folder: Path) -> tuple[Path, Path]:
    """Both sides, as files or as rendered directories."""
    write = _plain if pair.is_plain else _rendered
    return write(pair, "old", folder), write(pair, "new", folder)


def _plain(pair: HeldOut, side: str, folder: Path) -> Path:
    """A DeepSpeed config: a text as it stands, or one of bases/ with changes."""
    path = folder / side / "ds_config.json"
    path.parent.mkdir(parents=True)
    path.write_text(plain_text(pair[side]))
    return path


def plain_text(value: Any) -> str:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        return value
    change: dict[str, Any] = {"base": value} if isinstance(value, str) else value
    text = (FOLDER / "bases" / f"{change['base']}.json").read_text()
    if change.keys() == {"base"}:
        return text
    return json.dumps(changed(json.loads(text), change.get("set", {}), change.get("drop", ())), indent=2)


def changed(config: Mapping[str, Any], values: Mapping[str, Any], dropped: Any = ()) -> dict[str, Any]:
    """A copy with values at `a.b.c`, without the keys that are dropped."""
    result = copy.deepcopy(dict(config))
    for key, value in values.items():
        section, last = _section(result, key)
        section[last] = value
    for key in dropped:
        section, last = _section(result, key)
        del section[last]
    return result


def _section(config: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    *above, last = key.split(".")
    for name in above:
        config = config.setdefault(name, {})
    return config, last


def _rendered(pair: HeldOut, side: str, folder: Path) -> Path:
    """Planned and rendered by `vdsgen generate`; then edited, if the pair is of edits."""
    directory = folder / side / "plan"
    experiment = _input(pair["experiment"] or "video-1.5b")
    lab = _input("four-24gb")
    new = side == "new"
    if new and pair["lab"]:
        lab["pools"][0] |= pair["lab"]
    experiment = changed(experiment, pair[side], (pair["drop_pins"] or ()) if new else ())
    directory.mkdir(parents=True)
    for name, content in generated(yaml.safe_dump(experiment), yaml.safe_dump(lab)).items():
        (directory / name).write_bytes(content)
    for name, (old, text) in (pair["edit"] or {}).items() if new else ():
        content = (directory / name).read_text()
        assert old in content, f"{pair.name}: {old!r} is not in {name}"
        (directory / name).write_text(content.replace(old, text, 1))
    return directory


def _input(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((FOLDER / "inputs" / f"{name}.yaml").read_text())
    return content


@cache
def generated(experiment: str, lab: str) -> dict[str, bytes]:
    """What `vdsgen generate` writes for two files: once for all pairs that begin with them."""
    with TemporaryDirectory() as folder:
        paths = {name: Path(folder, f"{name}.yaml") for name in ("experiment", "lab")}
        paths["experiment"].write_text(experiment)
        paths["lab"].write_text(lab)
        out = Path(folder, "plan")
        arguments = [str(paths["experiment"]), "--lab", str(paths["lab"]), "--out", str(out)]
        result = CliRunner().invoke(generate, arguments)
        assert result.exit_code == 0, f"{experiment}: {result.output}{result.exception!r}"
        return {path.name: path.read_bytes() for path in out.iterdir()}
