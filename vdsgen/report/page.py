"""A report as one HTML file that asks nothing of the network.

Its Content-Security-Policy lets the browser fetch nothing, and run and apply only the scripts and the style
whose hashes it names: nothing that is shown can do either. Data is JSON in a block of its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from importlib import resources
from typing import Any

from vdsgen.errors import VdsgenError
from vdsgen.report.palette import as_json, style_variables
from vdsgen.report.section import Media, Report

SCRIPTS = (
    "vendor/echarts.js",
    "assets/tools.js",
    "assets/charts.js",
    "assets/memory.js",
    "assets/schedule.js",
    "assets/events.js",
    "assets/report.js",
)
"""In the order in which they run."""
STYLE = "assets/report.css"
MARK = "<!-- made by vdsgen report -->"
"""The second line of every report: what may be overwritten is told by it."""
ID = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,80}")


def page(report: Report) -> bytes:
    """The file. The same bytes for the same report."""
    from jinja2 import Environment, StrictUndefined

    _check_ids(report)
    template = resources.files("vdsgen.templates").joinpath("report.html.j2").read_text()
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    scripts = [_script(name) for name in SCRIPTS]
    style = _style()
    text = environment.from_string(template).render(
        report=report,
        mark=MARK,
        policy=_policy(scripts, style),
        scripts=scripts,
        style=style,
        data=_json_block(_data(report)),
        source_of=_source_of,
    )
    return text.encode()


def _check_ids(report: Report) -> None:
    """Ids are written into attributes and looked up by scripts."""
    ids: list[str] = []
    for section in report.sections:
        ids += [section.id, *(one.id for one in section.figures), *(one.id for one in section.media)]
    assert all(ID.fullmatch(one) for one in ids), "ids are letters, digits and hyphens"
    twice = {one for one in ids if ids.count(one) > 1}
    if twice:
        raise VdsgenError(f"two parts of the report are called {', '.join(sorted(twice))}")


def _data(report: Report) -> dict[str, Any]:
    charts = {
        figure.id: {"chart": figure.chart, "data": figure.data}
        for section in report.sections
        for figure in section.figures
        if figure.chart
    }
    return {"themes": as_json(), "charts": charts}


def _json_block(value: object) -> str:
    """JSON inside a script element: nothing in it can end the element or begin a comment."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _read(name: str) -> str:
    text = resources.files("vdsgen.report").joinpath(name).read_text(encoding="utf-8")
    return text.replace("\r\n", "\n")


def _script(name: str) -> str:
    """Never holds what would end its element; a test looks at each."""
    return "\n" + _read(name)


def _style() -> str:
    light, dark = style_variables("light"), style_variables("dark")
    return (
        f":root{{color-scheme:light;{light}}}\n"
        f':root[data-theme="dark"]{{color-scheme:dark;{dark}}}\n'
        f'@media (prefers-color-scheme:dark){{:root:not([data-theme="light"]){{color-scheme:dark;{dark}}}}}\n'
        f"@media print{{:root,:root[data-theme]{{color-scheme:light;{light}}}}}\n" + _read(STYLE)
    )


def _policy(scripts: list[str], style: str) -> str:
    allowed = " ".join(_hash(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; img-src data:; "
        "media-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _source_of(media: Media) -> str:
    return f"data:{media.media_type};base64,{base64.b64encode(media.content).decode()}"
