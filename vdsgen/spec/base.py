"""The manners that all specs share: frozen, strict, and unknown keys refused."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints


class Spec(BaseModel):
    """A value that people write. Numbers carry their unit in the key's name."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        defer_build=True,
        protected_namespaces=(),
    )


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", min_length=1, max_length=64)]
"""A name that becomes part of file names and shell words: letters, digits, `.`, `_` and `-`."""

HostName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$", min_length=1, max_length=253),
]

PathText = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]+$", min_length=1, max_length=4096)]
"""A path as the user wrote it; relative ones are resolved where the run starts."""

PositiveInt = Annotated[int, Field(gt=0, le=10**15)]
NonNegativeInt = Annotated[int, Field(ge=0, le=10**15)]
PositiveFloat = Annotated[float, Field(gt=0, le=1e15)]
NonNegativeFloat = Annotated[float, Field(ge=0, le=1e15)]
Fraction = Annotated[float, Field(ge=0, le=1)]
