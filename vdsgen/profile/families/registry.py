"""Which traced family a diffusers class belongs to."""

from __future__ import annotations

from vdsgen.errors import VdsgenError
from vdsgen.profile.families.cogvideox import COGVIDEOX
from vdsgen.profile.families.family import TracedFamily
from vdsgen.profile.families.hunyuan_video import HUNYUAN_VIDEO
from vdsgen.profile.families.latte import LATTE
from vdsgen.profile.families.ltx import LTX
from vdsgen.profile.families.mochi import MOCHI
from vdsgen.profile.families.svd import SVD
from vdsgen.profile.families.wan import WAN

FAMILIES = {family.class_name: family for family in (WAN, COGVIDEOX, LTX, HUNYUAN_VIDEO, MOCHI, LATTE, SVD)}


def family_of(class_name: str) -> TracedFamily:
    """Raises VdsgenError for a class whose layers nobody traces."""
    if class_name not in FAMILIES:
        raise VdsgenError(
            f"the layers of {class_name} are not traced: there is no profile to plan with",
            remedy=f"classes with profiles are {', '.join(FAMILIES)}",
        )
    return FAMILIES[class_name]
