"""Which family a diffusers class belongs to."""

from __future__ import annotations

from vdsgen.errors import VdsgenError
from vdsgen.model.families.cogvideox import COGVIDEOX
from vdsgen.model.families.family import Family
from vdsgen.model.families.hunyuan_video import HUNYUAN_VIDEO
from vdsgen.model.families.latte import LATTE
from vdsgen.model.families.ltx import LTX
from vdsgen.model.families.mochi import MOCHI
from vdsgen.model.families.svd import SVD
from vdsgen.model.families.wan import WAN

FAMILIES = {family.class_name: family for family in (WAN, COGVIDEOX, LTX, HUNYUAN_VIDEO, MOCHI, LATTE, SVD)}


def family_of(class_name: str) -> Family:
    """Raises VdsgenError for a class that nobody has cut."""
    if class_name not in FAMILIES:
        raise VdsgenError(
            f"{class_name} is no class that vdsgen can cut into pipeline layers",
            remedy=f"there are {', '.join(FAMILIES)}; docs/models.md says how one is added",
        )
    return FAMILIES[class_name]
