"""Which family a diffusers class belongs to."""

from __future__ import annotations

from vdsgen.profile.families.cogvideox import COGVIDEOX
from vdsgen.profile.families.family import Family
from vdsgen.profile.families.hunyuan_video import HUNYUAN_VIDEO
from vdsgen.profile.families.ltx import LTX
from vdsgen.profile.families.wan import WAN

FAMILIES = {family.class_name: family for family in (WAN, COGVIDEOX, LTX, HUNYUAN_VIDEO)}


def family_of(class_name: str) -> Family:
    """Raises KeyError for a class that nobody has cut."""
    return FAMILIES[class_name]
