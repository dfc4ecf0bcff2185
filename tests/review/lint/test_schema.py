"""The keys that lint and rendering know are those of the installed DeepSpeed."""

from __future__ import annotations

from tests.engine_keys_by_hand import NEVER_READ, TYPES, VALIDATED
from tests.update_engine_schema import FILE, schema_text
from vdsgen.catalog.engine_keys import engine_data, engine_section
from vdsgen.rules.registry import all_rules


def test_the_file_is_what_the_installed_engine_says() -> None:
    """Else run `python -m tests.update_engine_schema`, and read what changed."""
    assert FILE.read_text() == schema_text()


def test_every_key_has_a_type() -> None:
    for pointer, section in engine_data()["sections"].items():
        for name, entry in section["keys"].items():
            assert "removed" in entry or entry["type"] != "unknown", f"{pointer}/{name}"


def test_what_is_said_by_hand_is_of_keys_that_exist() -> None:
    for pointer in {*TYPES, *NEVER_READ, *VALIDATED}:
        section, _, name = pointer.rpartition("/")
        found = engine_section(section)
        assert found is not None and name in found.keys, pointer


def test_rules_are_about_keys_that_exist() -> None:
    for rule in all_rules():
        for pointer in rule.keys:
            section, _, name = pointer.rpartition("/")
            found = engine_section("/bf16" if section == "/bfloat16" else section)
            if found is not None:
                assert name in found.keys, (rule.id, pointer)


def test_what_the_schema_does_not_tell_is_the_engine_s() -> None:
    """Names that DeepSpeed takes in any case, and what its deprecated switches become."""
    from deepspeed.runtime import config as engine
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    from vdsgen.review.effective import OFFLOADS
    from vdsgen.review.engine_defaults import DEEPSPEED_OPTIMIZERS

    assert set(engine.DEEPSPEED_OPTIMIZERS) == DEEPSPEED_OPTIMIZERS
    assert engine.ADAM_W_MODE_DEFAULT is True
    for switch, section in OFFLOADS.items():
        assert getattr(DeepSpeedZeroConfig(stage=3, **{switch: True}), section).device == "cpu"
        assert getattr(DeepSpeedZeroConfig(stage=3, **{switch: False}), section) is None
    assert [DeepSpeedZeroConfig(stage=stage).overlap_comm for stage in (1, 2, 3)] == [False, False, True]
