"""The experiment: what to train, on which clips, and how."""

from __future__ import annotations

from typing import ClassVar, Literal

from vdsgen.spec.architecture import PresetModel, Vdt
from vdsgen.spec.base import CatalogName, Name, SpecWithOptions
from vdsgen.spec.config_overrides import Overrides
from vdsgen.spec.constraints import Constraints
from vdsgen.spec.data import Data
from vdsgen.spec.diffusers_model import DiffusersModel, DiffusersSource
from vdsgen.spec.training import Training

Objective = Literal["throughput", "cost", "fewest_gpus", "memory_headroom"]


class Experiment(SpecWithOptions):
    """`experiment.yaml`"""

    written_where_set: ClassVar[frozenset[str]] = frozenset({"overrides"})

    name: Name
    model: CatalogName | Vdt | PresetModel | DiffusersSource | DiffusersModel
    """A catalogue name, or a diffusers folder or config.json; a catalogue name with changes (`preset:`,
    `diffusers:`); or all sizes (`family: vdt`, `family: diffusers`)."""
    data: Data
    training: Training
    constraints: Constraints = Constraints()
    objective: Objective = "throughput"
    """What the best plan is best at: samples a second; GPU-seconds a sample (money, where pools say what
    a GPU costs); the fewest GPUs that anything fits; or the most memory left free on the fullest GPU."""
    overrides: Overrides = Overrides()
    """A lab's own settings on top of what is rendered (docs/reviewing.md)."""
