"""Which family a diffusers class belongs to."""

from __future__ import annotations

from vdsgen.errors import VdsgenError
from vdsgen.model.families.family import Family
from vdsgen.model.families.wan import WAN

FAMILIES = {family.class_name: family for family in (WAN,)}


def family_of(class_name: str) -> Family:
    """Raises VdsgenError for a class that nobody has cut."""
    if class_name not in FAMILIES:
        raise VdsgenError(
            f"{class_name} is no class that vdsgen can cut into pipeline layers",
            remedy=f"there are {', '.join(FAMILIES)}; docs/models.md says how one is added",
        )
    return FAMILIES[class_name]
