"""The manners that all specs share: frozen, strict, and unknown keys refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
)

from vdsgen.spec.secrets import has_credentials

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema


class Spec(BaseModel):
    """A value that people write. Numbers carry their unit in the key's name."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        defer_build=True,
        protected_namespaces=(),
    )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Published schemas describe fields by their docstrings."""
        from vdsgen.spec.field_docs import field_docs

        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, doc in field_docs(cls).items():
            if name in properties:
                properties[name].setdefault("description", doc)
        return schema


class SpecWithOptions(Spec):
    """A spec with keys that are written out only where they say something: adding one changes no file, and
    no hash, of those who do not use it."""

    written_where_set: ClassVar[frozenset[str]] = frozenset()
    """Keys that are left out where they have their default."""

    @model_serializer(mode="wrap")
    def _without_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        unset = {key for key in self.written_where_set if getattr(self, key) == fields[key].default}
        return {key: value for key, value in write(self).items() if key not in unset}


class SpecError(ValueError):
    """Raised by validators that compare several keys: names the key that the message should point at.

    `key` is relative to the validated spec and may be dotted: `latents.factor`, `pools[1].name`.
    """

    def __init__(self, key: str, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.key = key
        self.remedy = remedy


LARGEST = 10**15
"""No size, count or rate in a spec is larger; what is computed from them stays far from overflow."""


def _without_password(path: str) -> str:
    if has_credentials(path):
        raise ValueError("has a password in it; a path of this machine is needed")
    return path


NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
HOST_NAME_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$"
PATH_PATTERN = r"^[^\x00-\x1f]+$"
CATALOG_NAME_PATTERN = r"^[^\x00-\x1f\x7f]+$"

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, min_length=1, max_length=64)]
"""A name that becomes part of file names and shell words: letters, digits, `.`, `_` and `-`."""

CatalogName = Annotated[str, StringConstraints(pattern=CATALOG_NAME_PATTERN, min_length=1, max_length=256)]
"""A name that is only looked up: anything the catalogue does not hold is refused there, with what is near."""

HostName = Annotated[str, StringConstraints(pattern=HOST_NAME_PATTERN, min_length=1, max_length=253)]

PathText = Annotated[
    str,
    StringConstraints(pattern=PATH_PATTERN, min_length=1, max_length=4096),
    AfterValidator(_without_password),
]
"""A path as the user wrote it; relative ones are resolved where the run starts."""

MOST_GIB = 900_000
"""Of any memory: in bytes no more than LARGEST."""
PositiveGib = Annotated[float, Field(gt=0, le=MOST_GIB)]
PositiveInt = Annotated[int, Field(gt=0, le=LARGEST)]
NonNegativeInt = Annotated[int, Field(ge=0, le=LARGEST)]
PositiveFloat = Annotated[float, Field(gt=0, le=LARGEST)]
NonNegativeFloat = Annotated[float, Field(ge=0, le=LARGEST)]
Fraction = Annotated[float, Field(ge=0, le=1)]
