"""What a pool gives the ranks of a step: rates, paths between them, and shares of a host and of its cores."""

from __future__ import annotations

from vdsgen.cost.communication import Collective, Path
from vdsgen.cost.devices import Devices
from vdsgen.cost.engine_overhead import EngineOverhead
from vdsgen.cost.offload import Host
from vdsgen.cost.rates import Rates
from vdsgen.cost.settings import Settings
from vdsgen.cost.shared_processor import Sharing
from vdsgen.cost.unequal_nodes import topology_of
from vdsgen.spec.calibration import Calibration
from vdsgen.spec.dtypes import Dtype
from vdsgen.spec.lab import Pool
from vdsgen.spec.step_factors import StepFactors


class Hardware:
    """Of a pool whose names are resolved; remembers what was asked."""

    def __init__(self, pool: Pool) -> None:
        self.topology = topology_of(pool)
        self.devices = Devices(pool)
        self.factors = step_factors(pool)
        self.again = self.factors.recompute_factor / self.factors.compute_factor
        """A forward that runs again, over one that runs first."""
        self.sharing = Sharing.of(pool)
        self.engine = EngineOverhead.of(pool)
        self._hosts: dict[tuple[int, int], Host] = {}
        self._rates: dict[tuple[Dtype, int], Rates] = {}
        self._paths: dict[tuple[object, ...], Path] = {}

    def rates(self, dtype: Dtype, kind: int = 0) -> Rates:
        """Of one kind of GPU (cost/devices.py)."""
        if (dtype, kind) not in self._rates:
            self._rates[dtype, kind] = Rates.of(self.devices.views[kind], dtype)
        return self._rates[dtype, kind]

    def host(self, settings: Settings, kind: int = 0) -> Host:
        """What each rank has of a host with this kind of GPU."""
        view = self.devices.views[kind]
        assert view.gpus_per_node is not None, "a kind of GPU has a node"
        ranks = min(settings.world_size, view.gpus_per_node)
        if (kind, ranks) not in self._hosts:
            self._hosts[kind, ranks] = Host.of(view, ranks)
        return self._hosts[kind, ranks]

    def data_path(self, settings: Settings, stage: int, collective: Collective) -> Path:
        """What a collective between the data-parallel ranks of a stage runs over."""
        key = (*_degrees(settings), stage, collective)
        if key not in self._paths:
            self._paths[key] = self.topology.data_group(settings, stage, collective)
        return self._paths[key]

    def stage_boundary(self, settings: Settings, stage: int) -> Path:
        """From a stage to the next."""
        key = (*_degrees(settings), stage)
        if key not in self._paths:
            self._paths[key] = self.topology.stage_boundary(settings, stage)
        return self._paths[key]

    def speed(self, busy_ranks: int) -> float:
        """Of each of so many ranks that compute at once, relative to the measured rates."""
        return 1.0 if self.sharing is None else self.sharing.speed(busy_ranks)

    def peak_flops_per_second(self, settings: Settings) -> float:
        """Of all GPUs, or of the cores that ranks share."""
        if self.sharing is not None:
            cores = min(settings.world_size, self.sharing.cores)
            return self.rates(settings.dtype).peak_flops_per_second * cores
        return sum(
            count * self.rates(settings.dtype, kind).peak_flops_per_second
            for kind, count in self.devices.count(0, settings.world_size).items()
        )


def _degrees(settings: Settings) -> tuple[int, ...]:
    """What decides where ranks lie."""
    return (
        settings.pipeline_parallel_size,
        settings.data_parallel_size,
        settings.tensor_parallel_size,
        settings.sequence_parallel_size,
    )


def step_factors(pool: Pool) -> StepFactors:
    """What an ablation learned of the pool; all ones where none did."""
    factors = pool.calibration.step_factors if isinstance(pool.calibration, Calibration) else None
    return factors or StepFactors()
