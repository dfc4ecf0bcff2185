"""Which nodes of the pool a plan's ranks run on: a plan may use fewer GPUs than there are."""

from __future__ import annotations

from dataclasses import dataclass

from vdsgen.errors import VdsgenError
from vdsgen.spec.plan import Plan


@dataclass(frozen=True, slots=True)
class Placement:
    """Nodes in the order of the ranks on them."""

    nodes: int
    ranks_per_node: int
    """Of the node with most."""
    hosts: tuple[str, ...]
    """One a node; empty where the lab names none."""
    slots: tuple[int, ...]
    """What the hostfile gives each node: its ranks, or all its GPUs where `devices` chooses among them."""
    devices: tuple[tuple[int, ...], ...] = ()
    """The device numbers of each node that are used, rising; empty where its first ones are."""

    @property
    def include(self) -> str:
        """For DeepSpeed's --include (launcher/runner.py:280): exactly the planned devices."""
        names = self.hosts or ("localhost",)
        return "@".join(
            f"{name}:{','.join(map(str, devices))}"
            for name, devices in zip(names, self.devices, strict=False)
        )


def placement(plan: Plan) -> Placement:
    """As few nodes as hold the ranks. The planner uses part of one node, or whole nodes.

    Raises VdsgenError for a plan that somebody has changed into another."""
    pool, ranks = plan.inputs.pool, plan.parallel.world_size
    if plan.nodes:
        devices = tuple(tuple(sorted(node.devices)) for node in plan.nodes)
        cpu = pool.on_processors
        return Placement(
            nodes=len(plan.nodes),
            ranks_per_node=max(map(len, devices)),
            hosts=tuple(node.host for node in plan.nodes if node.host is not None),
            slots=tuple(len(node.devices) if cpu else node.gpus for node in plan.nodes),
            devices=() if cpu else devices,
        )
    nodes = -(-ranks // pool.gpus_per_node)
    if ranks % nodes:
        raise VdsgenError(
            f"plan.json: {ranks} ranks do not fill {nodes} nodes alike, as no plan does that was made here",
            remedy="render the directory again",
        )
    return Placement(
        nodes=nodes,
        ranks_per_node=ranks // nodes,
        hosts=() if pool.hosts is None else pool.hosts[:nodes],
        slots=(ranks // nodes,) * nodes,
    )
