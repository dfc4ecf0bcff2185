"""What `check` found in a tree, as JSON for programs and as Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vdsgen.render.formats import code, markdown
from vdsgen.review.adopt import adoptable, override_lines
from vdsgen.review.trees.check import VERDICTS, CheckedTree, Verdicted
from vdsgen.review.trees.fix import Adopted, Fixed
from vdsgen.review.trees.text import WORDS, counts, files_of, origin, reasons

MOST_IN_LINE = 12
"""Directories of one reason that are named before the rest is folded."""


def tree_document(
    tree: CheckedTree, adopted: Sequence[Adopted] = (), fixed: Sequence[Fixed] = ()
) -> dict[str, Any]:
    """Verdict, causes and files of every directory; what `--fix` did, where it was asked to."""
    document: dict[str, Any] = {
        "schema_version": 1,
        "fresh": tree.fresh,
        "counts": {verdict: len(tree.of(verdict)) for verdict in VERDICTS},
        "manifests": [str(path) for path in tree.manifests],
        "directories": [_directory(one) for one in tree.directories],
    }
    if adopted or fixed:
        document["adopted"] = [
            {"file": str(one.file), "lines": list(one.lines), "refused": one.refused} for one in adopted
        ]
        document["fixed"] = [
            {
                "path": str(one.path),
                "written": list(one.written),
                "kept": list(one.kept),
                "refused": one.refused,
            }
            for one in fixed
        ]
    return document


def _directory(one: Verdicted) -> dict[str, Any]:
    findings = () if one.checked is None else one.checked.findings
    own = adoptable(one.edits)
    return {
        "path": str(one.path),
        "verdict": one.verdict,
        "causes": list(one.causes),
        "experiment": None if one.entry is None else one.entry.sources.experiment_file,
        "lab": None if one.entry is None else one.entry.sources.lab_file,
        "files": [
            {"name": finding.name, "verdict": finding.verdict, "lines": list(finding.lines)}
            for finding in findings
        ],
        "leftovers": list(one.leftovers),
        "edits": [{"key": edit.key, "says": edit.words(), "instead": edit.instead} for edit in one.edits],
        "overrides": {"ds_config": own} if own else None,
    }


def tree_markdown(tree: CheckedTree, title: str) -> str:
    """For a comment on a pull request: counts, then a section for each verdict, long lists folded."""
    lines = [f"**vdsgen check** {code(title)}: {markdown(counts(tree))}", ""]
    for verdict in VERDICTS[:-1]:
        found = tree.of(verdict)
        if not found:
            continue
        lines += [f"#### {WORDS[verdict].capitalize()}", ""]
        for group in reasons(found):
            lines += [*_group(group), ""]
    if tree.of("stale") or tree.of("missing") or tree.of("other_version"):
        lines += ["`vdsgen check --fix` renders these anew.", ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _group(group: Sequence[Verdicted]) -> list[str]:
    first = group[0]
    names = [code(str(one.path)) for one in group]
    if len(names) > MOST_IN_LINE:
        head = f"{len(names)} directories"
        folded = f"<details><summary>{head}</summary>\n\n{', '.join(names)}\n\n</details>\n"
        lines = [folded]
    else:
        lines = [f"- {', '.join(names)}"]
    lines += [f"  - because {markdown(cause)}" for cause in first.causes]
    lines += [
        f"  - {markdown(edit.words())} → {markdown(edit.instead or 'can be an override')}"
        for edit in first.edits
    ]
    if first.leftovers:
        lines.append(f"  - {', '.join(map(code, first.leftovers))}: no longer rendered")
    if files_of(first):
        lines.append(f"  - {', '.join(map(code, files_of(first)))}")
    own = adoptable(first.edits)
    if own:
        lines += [f"  - put this into {code(origin(first))}:", "", "    ```yaml"]
        lines += [f"    {line.replace('`', chr(39))}" for line in override_lines(own)]
        lines += ["    ```"]
    return lines
