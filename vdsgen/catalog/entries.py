"""What the catalogue holds of a GPU, a link and a model."""

from __future__ import annotations

from typing import Literal

from vdsgen.spec.architecture import Vdt
from vdsgen.spec.base import Name, PositiveFloat, PositiveInt, Spec
from vdsgen.spec.lab import Gpu, Link


class CatalogGpu(Gpu):
    """A GPU that labs have, with where its figures come from.

    `memory_gib` is what the driver reports, not what the box says: ECC takes a sixteenth of GDDR6.
    """

    product: str
    """The vendor's name."""
    vendor: Literal["nvidia", "amd", "generic"]
    architecture: str
    links: tuple[Name, ...]
    """Links that the card has, by their catalogue names, the widest of each kind."""
    source: str
    """Of the rates, the bandwidth, the multiprocessors and the links. Exponentials are 16 a clock in each
    multiprocessor (CUDA C++ Programming Guide, "Arithmetic Instructions"), at the clock of `fp32_tflops`.
    int8 is twice fp16 with fp16 accumulation, as the same documents have it; of RTX A and RTX Ada cards,
    whose datasheets give no int8, by that ratio."""
    memory_source: str
    note: str | None = None

    @property
    def figures(self) -> Gpu:
        """Without names and sources."""
        return Gpu(**{name: getattr(self, name) for name in Gpu.model_fields})


class CatalogLink(Link):
    """A link as communication libraries see it: sustained, not the line rate."""

    kind: Literal["pcie", "nvlink", "xgmi", "infiniband", "ethernet", "memory"]
    line_rate_gb_per_second: PositiveFloat | None
    """What the standard says for one direction; None: there is no line."""
    nvlinks: PositiveInt | None = None
    """NVLinks of one GPU that the bandwidth is of; None: it is no NVLink."""
    joins: PositiveInt | None = None
    """Most GPUs that it connects to one another; None: any number."""
    source: str
    note: str | None = None

    @property
    def figures(self) -> Link:
        """Without names and sources."""
        return Link(**{name: getattr(self, name) for name in Link.model_fields})


class CatalogModel(Spec):
    """A model of the bundled family."""

    summary: str
    sizes: Vdt
