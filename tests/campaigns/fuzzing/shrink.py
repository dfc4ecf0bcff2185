"""The smallest case that still breaks the same promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.campaigns.fuzzing.case import Case

Breaks = Callable[[Case], bool]


def smallest(case: Case, breaks: Breaks) -> Case:
    """`breaks` is called some hundred times."""
    for argv in case.commands:
        if breaks(replace(case, commands=(argv,))):
            case = replace(case, commands=(argv,))
            break
    for name in list(case.files):
        fewer = replace(case, files={key: value for key, value in case.files.items() if key != name})
        if breaks(fewer):
            case = fewer
    for name in list(case.files):
        separator = b"\n" if b"\n" in case.files[name] else b","
        case = _fewer_parts(case, name, separator, breaks)
    return case


def _fewer_parts(case: Case, name: str, separator: bytes, breaks: Breaks) -> Case:
    """Leaves out ever shorter runs of lines."""
    length = len(case.files[name].split(separator)) // 2
    while length:
        at = 0
        while at < len(parts := case.files[name].split(separator)):
            shorter = separator.join(parts[:at] + parts[at + length :])
            candidate = replace(case, files={**case.files, name: shorter})
            if len(parts) > length and breaks(candidate):
                case = candidate
            else:
                at += length
        length //= 2
    return case
