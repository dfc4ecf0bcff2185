"""What `check` found in a tree, for the terminal: counts first, then directories by their reasons."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from vdsgen.review.adopt import adoptable, override_lines
from vdsgen.review.check import Checked, as_text
from vdsgen.review.printable import printable
from vdsgen.review.trees.check import VERDICTS, CheckedTree, Verdict, Verdicted
from vdsgen.review.trees.fix import Adopted, Fixed

WIDTH = 100
MOST_NAMES = 6
"""Directories of one reason that are named; the rest is counted."""
WORDS: dict[Verdict, str] = {
    "broken": "cannot be checked",
    "edited": "edited by hand",
    "orphaned": "orphaned",
    "other_version": "made by another version",
    "stale": "stale",
    "missing": "not rendered yet",
    "fresh": "fresh",
}
COLOURS: dict[Verdict, str] = {
    "broken": "31;1",
    "edited": "35;1",
    "orphaned": "33;1",
    "other_version": "36;1",
    "stale": "33;1",
    "missing": "33;1",
    "fresh": "32;1",
}


def tree_text(tree: CheckedTree, title: str, *, colour: bool = False, verbose: bool = False) -> str:
    """Everything that is not fresh; `verbose` adds each file's lines."""
    lines = [f"{printable(title)}: {counts(tree)}"]
    for verdict in VERDICTS[:-1]:
        found = tree.of(verdict)
        if found:
            head = WORDS[verdict]
            lines += ["", f"\x1b[{COLOURS[verdict]}m{head}\x1b[0m" if colour else head]
            for reason in reasons(found):
                lines += _reason(reason, verbose=verbose)
    remedy = _remedy(tree)
    return "\n".join([*lines, *(["", *remedy] if remedy else [])]) + "\n"


def counts(tree: CheckedTree) -> str:
    """`43 rendered directories: 40 fresh, 3 stale`."""
    number = len(tree.directories)
    noun = "rendered directory" if number == 1 else "rendered directories"
    if not number:
        return "no rendered directories"
    parts = [
        f"{len(tree.of(verdict))} {WORDS[verdict]}" for verdict in reversed(VERDICTS) if tree.of(verdict)
    ]
    return f"{number} {noun}: {', '.join(parts)}"


def reasons(found: Sequence[Verdicted]) -> Iterator[list[Verdicted]]:
    """Directories for which the same is to be said, in the order of the first of each."""
    groups: dict[tuple[object, ...], list[Verdicted]] = {}
    for one in found:
        groups.setdefault((one.causes, files_of(one), one.edits, one.leftovers), []).append(one)
    yield from groups.values()


def files_of(one: Verdicted) -> tuple[str, ...]:
    """Files that are to be written anew."""
    return () if one.checked is None else tuple(finding.name for finding in one.checked.findings)


def _reason(group: Sequence[Verdicted], *, verbose: bool) -> list[str]:
    first = group[0]
    shown = group if verbose else group[:MOST_NAMES]
    lines = [f"  {printable(str(one.path))}" for one in shown]
    if len(group) > len(shown):
        lines.append(f"  and {len(group) - len(shown)} more")
    for cause in first.causes:
        lines += _wrapped(f"because {cause}")
    if first.leftovers:
        lines += _wrapped(f"{', '.join(first.leftovers)}: no longer rendered")
    lines += [f"      {line}" for line in edit_lines(first)]
    edited = first.checked.edited if first.checked is not None else ()
    rest = [name for name in files_of(first) if name not in edited]
    by_hand = [name for name in edited if name != "ds_config.json" or not first.edits]
    if by_hand:
        lines += _wrapped(f"{', '.join(by_hand)}: not what the plan renders to")
    if rest:
        lines += _wrapped(f"differs when rendered: {', '.join(rest)}")
    if verbose:
        for one in group:
            for finding in one.checked.findings if one.checked is not None else ():
                lines += [f"      {line}" for line in finding.lines]
    return lines


def _wrapped(text: str) -> list[str]:
    clean = [printable(line) for line in text.split("\n")]
    return [
        part
        for line in clean
        for part in textwrap.wrap(
            line, WIDTH, initial_indent="      ", subsequent_indent="        ", break_on_hyphens=False,
            break_long_words=False,
        )
    ]  # fmt: skip


def edit_lines(one: Verdicted) -> list[str]:
    """Each edit of ds_config.json and what to do about it; then the lines for `overrides`."""
    if not one.edits:
        return []
    words = [printable(edit.words()) for edit in one.edits]
    widest = min(58, max(len(text) for text in words))
    lines = [
        f"{text.ljust(widest)}  -> {printable(edit.instead or 'can be an override')}"
        for text, edit in zip(words, one.edits, strict=True)
    ]
    own = adoptable(one.edits)
    if own:
        lines += [f"put this into {printable(origin(one))} (or let `vdsgen check --fix --adopt` do it):"]
        lines += [f"  {printable(line)}" for line in override_lines(own)]
    return lines


def origin(one: Verdicted) -> str:
    """The experiment that the directory comes from, as far as it is known."""
    return str(one.path / "train.yaml") if one.entry is None else one.entry.sources.experiment_file


def _remedy(tree: CheckedTree) -> list[str]:
    fixable = sum(len(tree.of(verdict)) for verdict in ("stale", "other_version", "missing"))
    lines = []
    if fixable:
        lines.append(f"-> `vdsgen check --fix` renders {'it' if fixable == 1 else f'these {fixable}'} anew")
    if tree.of("edited"):
        lines.append(
            "-> edits by hand: take them back, `--fix --adopt` what can be an override, or `--fix --force` "
            "(keeps a copy)"
        )
    if tree.of("orphaned"):
        lines.append("-> orphaned: `git rm` it, or bring back what it came from")
    return lines


def single_text(one: Verdicted, checked: Checked) -> str:
    """One directory that no manifest names: with the lines of every file."""
    text = as_text(checked)
    hints = edit_lines(one)
    if one.leftovers:
        text += f"{', '.join(one.leftovers)}: no longer rendered; remove with git rm\n"
    return text + "".join(f"{line}\n" for line in (["", *hints] if hints else []))


def fixed_text(adopted: Sequence[Adopted], fixed: Sequence[Fixed]) -> str:
    """What was written, what was kept aside, what was left alone and why."""
    lines = []
    for one in adopted:
        if one.refused is not None:
            lines.append(f"{printable(str(one.file))}: not adopted: {printable(one.refused)}")
            continue
        lines.append(f"{printable(str(one.file))}: overrides written")
        lines += [f"  {printable(line)}" for line in one.lines]
        if one.recorded_only:
            lines.append(
                "  write the same into the experiment: rendering from it anew knows nothing of this file"
            )
    for outcome in fixed:
        path = printable(str(outcome.path))
        if outcome.refused is not None:
            lines.append(f"{path}: left as it is: {printable(outcome.refused)}")
        elif outcome.written:
            kept = f"; kept {', '.join(outcome.kept)}" if outcome.kept else ""
            lines.append(f"{path}: rendered {', '.join(outcome.written)}{kept}")
    return "".join(f"{line}\n" for line in lines)


def title_of(paths: Sequence[Path]) -> str:
    """What was named on the command line."""
    return ", ".join(os.fspath(path) for path in paths)
