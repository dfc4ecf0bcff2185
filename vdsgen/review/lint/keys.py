"""Keys and values of a config against those that the engine knows: one walk, that also keeps the values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from vdsgen.catalog.engine_keys import EngineKey, EngineSection, engine_section
from vdsgen.catalog.trainer_keys import READ_BY_THE_TRAINER
from vdsgen.review.lint.document import Document, Entry, Node, Path, pointer
from vdsgen.review.lint.finding import Finding, finding_at, move, remove, replace
from vdsgen.review.lint.kinds import WrongValueError, coerced, expected, is_plainly, taken, written
from vdsgen.spec.suggest import did_you_mean

AUTO = "auto"
CONFIG = "runtime/config.py"
MODEL = "runtime/config_utils.py:54"
"""DeepSpeedConfigModel's constructor: drops "auto", refuses unknown keys."""
MOST_SUGGESTIONS = 200
"""Nearest names that are looked for in one file: each takes a comparison with every key of its section."""
BATCH = ("/train_batch_size", "/train_micro_batch_size_per_gpu", "/gradient_accumulation_steps")
RULED = frozenset({"/zero_optimization/cpu_offload_use_pin_memory"})
"""Deprecated keys that have a rule of their own."""


@dataclass
class Values:
    """What the engine would work with, by JSON pointer and the engine's own names."""

    written: dict[str, Any] = field(default_factory=dict)
    """Valid values, as the engine's types coerce them."""
    wrong: set[str] = field(default_factory=set)
    """Pointers of values that are not of their type: nothing is known of them."""
    automatic: set[str] = field(default_factory=set)
    """Those of `given` whose value is "auto"."""
    filled: set[str] = field(default_factory=set)
    """Pointers of "auto" that something fills in before the engine sees it."""
    given: set[str] = field(default_factory=set)
    """Pointers of all keys that are there, sections too, as they are written."""

    def get(self, key: str) -> Any:
        """The value at a pointer, else the engine's default; None where it is not known."""
        if key in self.written:
            return self.written[key]
        parent, _, name = key.rpartition("/")
        if key in self.wrong | self.filled or parent in self.wrong:
            return None
        section = engine_section(parent)
        return section.keys[name].default if section is not None else None


@dataclass
class Walk:
    """Goes through a document once."""

    document: Document
    auto_filled: bool
    """Transformers or Accelerate put numbers in the place of "auto" before the engine sees the config."""
    our_trainer: bool = False
    """The bundled training entrypoint reads the config too: its keys are none of the engine's."""
    is_pipeline: bool = False
    """The model is known to be a PipelineModule."""
    values: Values = field(default_factory=Values)
    findings: list[Finding] = field(default_factory=list)
    unknown_keys: int = 0

    def run(self) -> None:
        top = engine_section("")
        assert top is not None, "the config itself is a section"
        self.section(top, self.document.root, ())

    def add(self, path: Path, check: str, level: Any, message: str, **more: Any) -> None:
        self.findings.append(finding_at(self.document, path, check, level, message, **more))

    def section(self, section: EngineSection, node: Node, path: Path) -> None:
        entries = node.entries or []
        self.duplicates(entries, path)
        for entry in {entry.key: entry for entry in entries}.values():
            here = (*path, entry.key)
            self.note_given(entry.value, here)
            key = section.keys.get(entry.key)
            if key is None:
                self.unknown(section, entry, here)
            elif key.removed is None:  # what was removed has a rule for each key
                self.known(section, key, entry.value, here)
        self.named_twice(section, entries, path)

    def named_twice(self, section: EngineSection, entries: list[Entry], path: Path) -> None:
        """A key under both of its names: pydantic takes the first, and refuses the second."""
        names = {section.keys[entry.key].name: entry.key for entry in entries if entry.key in section.keys}
        for entry in entries:
            key = section.keys.get(entry.key)
            other = names[key.name] if key is not None else entry.key
            if other != entry.key:
                self.add((*path, entry.key), "key-named-twice", "error",
                         f"{entry.key} and {other} are two names of one key, and both are there",
                         remedy="keep one of them", source=MODEL, at_key=True)  # fmt: skip

    def note_given(self, node: Node, path: Path) -> None:
        if len(path) == 1 and node.entries is None and node.items is None and node.value is None:
            return  # null: as if the key were not there
        self.values.given.add(pointer(path))
        if node.value == AUTO:
            self.values.automatic.add(pointer(path))
        for entry in node.entries or []:
            self.note_given(entry.value, (*path, entry.key))

    def duplicates(self, entries: list[Entry], path: Path) -> None:
        seen: set[str] = set()
        for entry in entries:
            if entry.key in seen:
                place = self.document.place(entry.start, entry.key_end)
                finding = finding_at(
                    self.document, (*path, entry.key), "duplicate-key", "error",
                    f"{written(entry.key)} is given twice in one object",
                    remedy="keep one of them", source="runtime/config_utils.py:204",
                )  # fmt: skip
                self.findings.append(finding._replace(place=place))
            seen.add(entry.key)

    def unknown(self, section: EngineSection, entry: Entry, path: Path) -> None:
        if section.unknown_keys == "free":
            return
        if self.our_trainer and entry.key in READ_BY_THE_TRAINER.get(section.pointer[1:], ()):
            return
        where = f"in {section.pointer[1:].replace('/', '.')}" if section.pointer else "at the top level"
        usable = [name for name, key in section.keys.items() if key.removed is None]
        self.unknown_keys += 1
        near = did_you_mean(entry.key, sorted(usable)) if self.unknown_keys <= MOST_SUGGESTIONS else None
        elsewhere = "" if near else _elsewhere(entry.key, section.pointer)
        remedy = f"did you mean {near}?" if near else elsewhere or "take it out"
        fix = [move(path, near)] if near and near not in {e.key for e in self.siblings(path)} else []
        python_argument = section.model is not None and entry.key == "strict"
        if section.unknown_keys == "refused" and not python_argument:
            message = f"DeepSpeed knows no key {written(entry.key)} {where}, and refuses it"
            self.add(path, "unknown-key", "error", message, remedy=remedy, source=MODEL, fix=fix, at_key=True)
        else:
            message = f"DeepSpeed knows no key {written(entry.key)} {where}, and drops it without a word"
            self.add(
                path, "unknown-key", "warning", message, remedy=remedy, source=CONFIG, fix=fix, at_key=True
            )

    def siblings(self, path: Path) -> list[Entry]:
        parent = self.document.node(path[:-1])
        return (parent.entries or []) if parent is not None else []

    def known(self, section: EngineSection, key: EngineKey, node: Node, path: Path) -> None:
        name = f"{section.pointer}/{key.name}"
        self.deprecated(key, path)
        if not key.read and key.section is None and section.pointer != "/pipeline":  # which has rules
            message = f"nothing in DeepSpeed reads {key.name}"
            self.add(
                path, "unread-key", "warning", message, remedy="take it out", fix=[remove(path)], at_key=True
            )
        value = node.plain()
        if value == AUTO and self.auto(section, key, path, name):
            return
        if key.section is not None:
            self.inner(key, node, path, name)
        elif section.model is not None:
            self.checked_by_pydantic(key, value, path, name)
        else:
            self.read_by_hand(key, value, path, name)

    def deprecated(self, key: EngineKey, path: Path) -> None:
        if key.deprecated is None or pointer(path) in RULED:
            return
        instead = f"use {key.deprecated}" if key.deprecated else "take it out"
        message = f"{path[-1]} is deprecated"
        renames = key.moves_value and key.kind["type"] == "bool" and key.default is False
        fix = [move(path, key.deprecated)] if renames else _offload_fix(self.document, path)
        self.add(
            path, "deprecated-key", "warning", message, remedy=instead, source=MODEL, fix=fix, at_key=True
        )

    def auto(self, section: EngineSection, key: EngineKey, path: Path, name: str) -> bool:
        """Handles "auto" where it is no value of the key's own; whether it did."""
        if key.default == AUTO or any(AUTO in m.get("choices", ()) for m in key.kind.get("members", ())):
            return False
        if self.auto_filled:
            self.values.filled.add(name)
            return True
        remedy = "write the value, or start it through Transformers or Accelerate (--auto-filled)"
        if section.model is not None:
            message = (
                f'"auto" is for Transformers and Accelerate, which fill it in: DeepSpeed itself drops it, '
                f"and takes its default {written(key.default)}"
            )
            self.add(path, "auto-is-default", "warning", message, remedy=remedy, source=MODEL)
        elif name not in BATCH:  # batch sizes have a rule
            message = (
                '"auto" is for Transformers and Accelerate, which fill it in: DeepSpeed itself takes it for '
                "text"
            )
            asked_by_if = key.kind["type"] == "bool" and not self.is_checked(key)
            refused = self.is_checked(key) or (section.pointer == "" and not asked_by_if)
            level = "error" if refused else "warning"
            self.add(path, "auto-as-text", level, message, remedy=remedy, source=CONFIG)
            if asked_by_if:
                self.values.written[name] = True
                return True
        if section.model is None:
            self.values.wrong.add(name)
        return True

    def inner(self, key: EngineKey, node: Node, path: Path, name: str) -> None:
        inner = engine_section(key.section or "")
        assert inner is not None, f"{name} has no section in the schema"
        if node.entries is not None:
            self.values.written[name] = {}
            self.section(inner, node, path)
        elif node.items is None and node.value is None and key.kind.get("optional"):
            self.values.written[name] = None
        elif name == "/zero_optimization" and isinstance(node.value, bool):
            message = "a ZeRO stage is told by an object; true stands for stage 1, and is deprecated"
            new = {"stage": 1 if node.value else 0}
            self.add(path, "deprecated-key", "warning", message, remedy=f"write {written(new)}",
                     source="runtime/zero/config.py:60", fix=[replace(path, new)])  # fmt: skip
            self.values.written["/zero_optimization"] = {}
            self.values.written["/zero_optimization/stage"] = new["stage"]
        else:
            self.wrong(key, node.plain(), path, name, "error")

    def checked_by_pydantic(self, key: EngineKey, value: Any, path: Path, name: str) -> None:
        try:
            made = coerced(key.kind, value)
        except WrongValueError:
            self.wrong(key, value, path, name, "error")
            return
        self.values.written[name] = made
        if not is_plainly(key.kind, value):
            message = (
                f"{written(value)} where {expected(key.kind)} is expected: DeepSpeed takes it for "
                f"{written(made)}"
            )
            plain = made if isinstance(made, bool | int | float | str) else value
            self.add(path, "coerced-value", "note", message, remedy=f"write {written(plain)}",
                     source=MODEL, fix=[replace(path, plain)])  # fmt: skip

    def read_by_hand(self, key: EngineKey, value: Any, path: Path, name: str) -> None:
        if is_plainly(key.kind, value):
            self.values.written[name] = value
            return
        try:
            self.values.written[name] = taken(key.kind, value)
        except WrongValueError:
            self.wrong(key, value, path, name, "error" if self.is_checked(key) else "warning")
        else:
            self.not_plain(key, value, path, "warning")

    def is_checked(self, key: EngineKey) -> bool:
        """Whether the engine raises for a value of another type."""
        checked = key.kind.get("checked", False)
        return self.is_pipeline if checked == "pipeline" else bool(checked)

    def wrong(self, key: EngineKey, value: Any, path: Path, name: str, level: str) -> None:
        self.values.wrong.add(name)
        self.not_plain(key, value, path, level)

    def not_plain(self, key: EngineKey, value: Any, path: Path, level: str) -> None:
        message = f"expected {expected(key.kind)}, given {written(value)}"
        fix = _wrong_fix(key, value, path)
        remedy = f"write {written(fix[0]['value'])}" if fix else None
        self.add(
            path,
            "wrong-type",
            level,
            message,
            remedy=remedy,
            source=MODEL if level == "error" else CONFIG,
            fix=fix,
        )


def _elsewhere(name: str, but: str) -> str | None:
    """Where a key of this name belongs."""
    places = [
        section.pointer
        for section in all_sections()
        if name in section.keys and section.pointer != but and section.keys[name].removed is None
    ]
    if len(places) != 1:
        return None
    return f"it belongs in {places[0][1:].replace('/', '.')}" if places[0] else "it belongs at the top level"


def all_sections() -> Iterator[EngineSection]:
    """Every section that the engine has."""
    from vdsgen.catalog.engine_keys import engine_data

    for name in engine_data()["sections"]:
        section = engine_section(name)
        assert section is not None, "listed and not there"
        yield section


def _offload_fix(document: Document, path: Path) -> list[dict[str, Any]]:
    """`cpu_offload: true` as its new section."""
    new = {"cpu_offload": "offload_optimizer", "cpu_offload_param": "offload_param"}.get(str(path[-1]))
    if new is None or document.node((*path[:-1], new)) is not None:
        return []
    node = document.node(path)
    add = {"op": "add", "path": pointer((*path[:-1], new)), "value": {"device": "cpu"}}
    return [dict(remove(path)), add] if node is not None and node.value is True else [dict(remove(path))]


def _wrong_fix(key: EngineKey, value: Any, path: Path) -> list[Any]:
    """The value that was meant, where there is one."""
    if isinstance(value, str):
        choices = [choice for choice in key.kind.get("choices", ()) if isinstance(choice, str)]
        near = did_you_mean(value, choices) if choices else None
        if near is not None:
            return [replace(path, near)]
        if key.kind["type"] in ("int", "float", "bool"):
            return _meant(key, value.strip(), path)
    if isinstance(value, float) and value.is_integer() and is_plainly(key.kind, int(value)):
        return [replace(path, int(value))]
    return []


def _meant(key: EngineKey, text: str, path: Path) -> list[Any]:
    """The value that text in quotes stands for: `"5e8"` for 500000000."""
    try:
        return [replace(path, coerced(key.kind, text))]
    except WrongValueError:
        pass
    try:
        number = float(text)
        whole = int(number) if key.kind["type"] == "int" and number.is_integer() else number
        return [replace(path, coerced(key.kind, whole))]
    except (WrongValueError, ValueError, OverflowError):
        return []
