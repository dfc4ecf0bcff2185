"""The sandbox that templates run in: where they come from, what they may call, how their errors read."""

from __future__ import annotations

import importlib.resources
import shlex
import traceback
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from vdsgen.errors import InputError, Problem, VdsgenError
from vdsgen.planner import words
from vdsgen.render import formats
from vdsgen.render.file_names import TEMPLATES as TEMPLATES
from vdsgen.render.limits import OUTPUT_CHARACTERS, limited
from vdsgen.render.serialise import pretty_json, pretty_yaml

BUNDLED = "bundled/"
"""A lab's template may extend the one it replaces: `{% extends "bundled/PLAN.md.j2" %}`."""

TEMPLATE_BYTES = 1024**2
NOT_DETERMINISTIC = ("random", "lipsum")

FILTERS: Mapping[str, Callable[..., str]] = {
    "json": lambda value: pretty_json(value).rstrip("\n"),
    "tojson": lambda value: pretty_json(value).rstrip("\n"),
    "yaml": lambda value: pretty_yaml(value).rstrip("\n"),
    "shell": lambda value: shlex.quote(str(value)),
    "md": formats.markdown,
    "code": formats.code,
    "table": formats.markdown_table,
    "gib": formats.gib,
    "seconds": words.seconds,
    "duration": words.duration,
    "decimal": formats.decimal,
    "percent": words.percent,
    "thousands": formats.thousands,
}
"""Beyond jinja2's own."""


class Environment(ImmutableSandboxedEnvironment):
    """Jinja without attributes that start with an underscore, mutation, chance, or silent mistakes."""

    def __init__(self, template_dir: Path | None) -> None:
        super().__init__(
            loader=jinja2.FunctionLoader(lambda name: _load(name, template_dir)),
            undefined=jinja2.StrictUndefined,
            autoescape=False,  # the files are JSON, YAML, shell and Markdown; filters quote
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            finalize=_only_plain_values,
        )
        for name in NOT_DETERMINISTIC:
            self.filters.pop(name, None)
            self.globals.pop(name, None)
        self.filters.update(FILTERS)


@cache
def bundled_environment() -> Environment:
    """The environment without a lab's templates; what it compiled is kept."""
    return Environment(None)


def unknown_templates(template_dir: Path) -> list[str]:
    """Names in `template_dir` that replace nothing; worth a warning."""
    return sorted(entry.name for entry in template_dir.iterdir() if entry.name not in TEMPLATES)


def render_template(environment: Environment, name: str, context: Mapping[str, Any]) -> str:
    """The text of one template. Raises InputError with the template's file and line."""
    chunks: list[str] = []
    length = 0
    try:
        with limited(name):
            for chunk in environment.get_template(name).generate(dict(context)):
                chunks.append(chunk)
                length += len(chunk)
                if length > OUTPUT_CHARACTERS:
                    raise VdsgenError(f"{name}: rendered over {OUTPUT_CHARACTERS} characters")
            return "".join(chunks)
    except jinja2.TemplateSyntaxError as error:
        place = error.filename or error.name
        raise InputError([Problem(str(error.message), file=place, line=error.lineno)]) from error
    except jinja2.TemplateNotFound as error:
        known = ", ".join(TEMPLATES)
        raise VdsgenError(
            f"{name} asks for the template {error.name!r}, which there is none of",
            remedy=f"there are {known}, and the same with {BUNDLED!r} before them",
        ) from error
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise InputError([_problem(name, error)]) from error
    except RecursionError as error:
        raise VdsgenError(f"{name}: a macro, block or include calls itself without end") from error


def _problem(name: str, error: Exception) -> Problem:
    """The innermost template line that the error came through (jinja2 maps its frames to templates)."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(".j2")]
    place = frames[-1] if frames else None
    return Problem(str(error), file=place.filename if place else name, line=place.lineno if place else None)


def _only_plain_values(value: Any) -> Any:
    """What `{{ }}` may print. Everything else would print Python's own spelling, or an address."""
    if isinstance(value, (str, int, float, jinja2.Undefined)) and not isinstance(value, bool):
        return value
    kind = "a yes or no" if isinstance(value, bool) else f"a {type(value).__name__}"
    raise jinja2.TemplateRuntimeError(f"{kind} cannot be printed as it is: name a key of it, or use | json")


def _load(name: str, template_dir: Path | None) -> tuple[str, str, None] | None:
    bundled_name = name.removeprefix(BUNDLED)
    if bundled_name not in TEMPLATES:
        return None
    if template_dir is not None and name == bundled_name and (template_dir / name).is_file():
        return _lab_template(template_dir / name), str(template_dir / name), None
    return _bundled_template(bundled_name), bundled_name, None


@cache
def _bundled_template(name: str) -> str:
    return (importlib.resources.files("vdsgen.templates") / name).read_text("utf-8")


def _lab_template(path: Path) -> str:
    try:
        if path.stat().st_size > TEMPLATE_BYTES:
            raise VdsgenError(f"{path} is larger than {TEMPLATE_BYTES} bytes")
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise VdsgenError(f"{path} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise VdsgenError(f"cannot read {path}: {error.strerror}") from error
