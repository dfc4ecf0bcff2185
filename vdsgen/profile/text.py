"""A profile as the text that is committed: stable, and short enough to review."""

from __future__ import annotations

import json
import re

from vdsgen.spec.profile import ModelProfile

_INNERMOST = re.compile(r"[\[{][^\[\]{}]*[\]}]")


def profile_text(profile: ModelProfile) -> str:
    """Indented JSON in the order of the fields, each innermost list and object on one line."""
    text = json.dumps(profile.model_dump(mode="json"), indent=2, ensure_ascii=False)
    return _INNERMOST.sub(lambda match: " ".join(match.group().split()), text) + "\n"
