"""A lab's own changes to what is rendered: in the experiment they survive each rendering."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from vdsgen.spec.base import Spec, SpecError
from vdsgen.spec.planned_keys import instead_of, leaves
from vdsgen.spec.secrets import is_secret
from vdsgen.spec.source import dotted


class Overrides(Spec):
    """Put over what a plan renders to. What the plan or the experiment decides cannot be set here."""

    ds_config: dict[str, Any] = Field(default_factory=dict)
    """Keys of ds_config.json as DeepSpeed has them, such as
    `{steps_per_print: 10, zero_optimization: {overlap_comm: true}}`. Predictions do not know of them."""

    @model_validator(mode="after")
    def _leave_the_plan_alone(self) -> Self:
        for path, value in leaves(self.ds_config):
            key = dotted(("ds_config", *path))
            instead = instead_of(".".join(path))
            if instead is not None:
                name = ".".join(path)
                raise SpecError(key, f"{name} is not free: the plan decides it", remedy=instead)
            if value is None:
                raise SpecError(key, "is null; a key is overridden by a value", remedy="leave the key out")
            if isinstance(value, str) and is_secret(path[-1], value):
                raise SpecError(
                    key, "is a secret, and this file is shared", remedy="leave it to the environment"
                )
        return self
