"""A lab's own templates: what they may do, and how their mistakes read."""

from __future__ import annotations

import json
import resource
import signal
import time
from pathlib import Path

import pytest

from tests.render.plans import plan_of, small_experiment
from vdsgen.errors import InputError, VdsgenError
from vdsgen.render import limits
from vdsgen.render.environment import TEMPLATES, unknown_templates
from vdsgen.render.render import render_plan


def render_with(folder: Path, name: str, text: str) -> dict[str, bytes]:
    (folder / name).write_text(text)
    return render_plan(plan_of(), small_experiment(), folder)


def error_of(folder: Path, name: str, text: str) -> str:
    with pytest.raises(VdsgenError) as caught:
        render_with(folder, name, text)
    return str(caught.value)


def test_a_lab_replaces_one_template_and_keeps_the_others(tmp_path: Path) -> None:
    files = render_with(tmp_path, "PLAN.md.j2", "{{ plan.pool }}: {{ peak.bytes | gib }} GiB\n")
    bundled = render_plan(plan_of(), small_experiment())
    assert files["PLAN.md"] == b"pool: 18.25 GiB\n"
    assert all(files[name] == bundled[name] for name in files if name != "PLAN.md")


def test_a_lab_extends_the_template_that_it_replaces(tmp_path: Path) -> None:
    text = (
        '{% extends "bundled/ds_config.json.j2" %}{% block more %}"wall_clock_breakdown": true,{% endblock %}'
    )
    config = json.loads(render_with(tmp_path, "ds_config.json.j2", text)["ds_config.json"])
    bundled = json.loads(render_plan(plan_of(), small_experiment())["ds_config.json"])
    assert config == {"wall_clock_breakdown": True, **bundled}


def test_json_is_written_in_one_form_whatever_the_template_s_spacing(tmp_path: Path) -> None:
    entry = '"{{key}}":\n\n {{ value|json }} {{ "," if not loop.last }}'
    text = "{ {% for key, value in engine.items() %}" + entry + "{% endfor %}}"
    files = render_with(tmp_path, "ds_config.json.j2", text)
    assert files["ds_config.json"] == render_plan(plan_of(), small_experiment())["ds_config.json"]


def test_names_that_replace_nothing_are_reported_and_not_read(tmp_path: Path) -> None:
    (tmp_path / "plan.md.j2").write_text("{{ nonsense }}")
    assert unknown_templates(tmp_path) == ["plan.md.j2"]
    assert render_plan(plan_of(), small_experiment(), tmp_path) == render_plan(plan_of(), small_experiment())


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("one\ntwo\n{{ plan.nonsense }}\n", 3, "no attribute 'nonsense'"),
        ("one\n{% if %}\n", 2, "Expected an expression"),
        ("one\n\n\n{{ plan.stages + 1 }}", 4, "can only concatenate"),
        ("{% for s in plan.stages %}\n{{ 1 // 0 }}\n{% endfor %}", 2, "division"),
        ("\n{{ plan.stages }}", 2, "a list cannot be printed as it is"),
        ("\n{{ true }}", 2, "a yes or no cannot be printed"),
        ("\n{{ plan.items }}", 2, "cannot be printed as it is"),
        ("{{ plan | nonsense }}", 1, "nonsense"),
    ],
)
def test_mistakes_name_the_template_and_its_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    error = error_of(tmp_path, "PLAN.md.j2", text)
    assert f"{tmp_path / 'PLAN.md.j2'}:{line}:" in error
    assert message in error


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ plan.__class__ }}",
        "{{ plan['__class__'] }}",
        "{{ ''|attr('__class__') }}",
        "{{ cycler.__init__.__globals__.os.system('touch hacked') }}",
        "{{ self.__init__ }}",
        "{{ plan.update({'pool': 'x'}) }}",
        "{{ plan.stages.append(1) }}",
        "{{ '{0.__class__}'.format(plan) }}",
        "{% set x = plan.stages.clear() %}",
    ],
)
def test_the_sandbox_lets_nothing_out_and_changes_nothing(tmp_path: Path, attack: str) -> None:
    assert "PLAN.md.j2" in error_of(tmp_path, "PLAN.md.j2", attack)


@pytest.mark.parametrize("name", ["lipsum()", "[1, 2] | random"])
def test_nothing_in_a_template_is_left_to_chance(tmp_path: Path, name: str) -> None:
    assert "PLAN.md.j2" in error_of(tmp_path, "PLAN.md.j2", "{{ " + name + " }}")


@pytest.mark.parametrize("name", ["../secret.j2", "/etc/passwd", "other.j2", "bundled/../x"])
def test_only_the_known_templates_can_be_included(tmp_path: Path, name: str) -> None:
    (tmp_path.parent / "secret.j2").write_text("secret")
    (tmp_path / "other.j2").write_text("other")
    assert "there is none of" in error_of(tmp_path, "PLAN.md.j2", "{% include '" + name + "' %}")


@pytest.mark.parametrize(
    "bomb",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 10 ** 12 }}",
        "{% set n = namespace(x='x' * 1000) %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{{ '%0999999999d' % 1 }}",
        "{{ 'x' | center(10 ** 12) }}",
        "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
        "{{ 7 ** (7 ** (7 ** 7)) % 10 }}",
        "{{ range(10 ** 9) | list | length }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% include 'PLAN.md.j2' %}",
    ],
)
def test_no_template_runs_for_ever_or_fills_memory(
    tmp_path: Path, bomb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SECONDS", 0.5)
    monkeypatch.setattr(limits, "MEMORY_BYTES", 128 * 1024**2)
    handler, began = signal.getsignal(signal.SIGVTALRM), time.process_time()
    assert "PLAN.md.j2" in error_of(tmp_path, "PLAN.md.j2", bomb)
    assert time.process_time() - began < 5
    assert signal.getsignal(signal.SIGVTALRM) is handler
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ('"gradient_cliping": 1.0,', "did you mean gradient_clipping?"),
        ('"amp": {"enabled": true},', "amp: neither DeepSpeed nor"),
        ('"bf16": {"enabled": true},', 'bf16 is {"enabled": true}, the plan says left out'),
        ('"train_batch_size": 8,', "train_batch_size twice"),
        ('"x": NaN,', "NaN"),
        ('"x" 1,', "no JSON"),
    ],
)
def test_a_config_that_leaves_the_plan_is_refused(tmp_path: Path, block: str, message: str) -> None:
    text = '{% extends "bundled/ds_config.json.j2" %}{% block more %}' + block + "{% endblock %}"
    error = error_of(tmp_path, "ds_config.json.j2", text)
    assert "ds_config.json.j2" in error
    assert message in error


def test_a_setting_that_the_plan_rests_on_cannot_be_changed_in_a_template(tmp_path: Path) -> None:
    text = """{ {% for key, value in engine.items() %}
    {% if key == "zero_optimization" %}"zero_optimization": {"stage": 0},
    {% else %}{{ key | json }}: {{ value | json }}{{ "," if not loop.last }}{% endif %}{% endfor %} }"""
    error = error_of(tmp_path, "ds_config.json.j2", text)
    assert "zero_optimization.stage is 0, the plan says 1" in error
    assert "zero_optimization.reduce_bucket_size is left out, the plan says 5000000" in error


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("plan.json.j2", "{}", "no plan"),
        ("plan.json.j2", '{{ plan | json | replace("512", "1024") }}', "another plan"),
        ("train.yaml.j2", "[", "no experiment"),
        ("train.yaml.j2", "a: 1", "no experiment"),
        ("train.yaml.j2", '{{ experiment | yaml | replace("seed: 0", "seed: 1") }}', "another experiment"),
        ("hostfile.j2", "localhost 4\n", "line 1 is 'localhost 4'"),
        ("hostfile.j2", "localhost slots=2\n", "the plan has {'localhost': 4}"),
        ("launch.sh.j2", "if [[ ; then\n", "bash cannot parse it"),
    ],
)
def test_files_that_say_something_else_than_the_plan_are_refused(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    error = error_of(tmp_path, name, text)
    assert name in error
    assert message in error


def test_a_template_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "PLAN.md.j2").write_bytes(b"\xff\xfe")
    with pytest.raises(VdsgenError, match="not UTF-8"):
        render_plan(plan_of(), small_experiment(), tmp_path)


def test_there_is_one_template_for_each_file_and_no_other() -> None:
    bundled = Path(__file__).parents[2] / "templates"
    assert sorted(path.name for path in bundled.glob("*.j2")) == sorted([*TEMPLATES, "report.html.j2"])


def test_errors_of_templates_are_input_errors_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "hostfile.j2").write_text("\n\n{{ launch.nope }}")
    with pytest.raises(InputError) as caught:
        render_plan(plan_of(), small_experiment(), tmp_path)
    assert [(problem.file, problem.line) for problem in caught.value.problems] == [
        (str(tmp_path / "hostfile.j2"), 3)
    ]
