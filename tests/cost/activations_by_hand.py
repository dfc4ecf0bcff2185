"""Activations of small stages of round layers, counted by hand from how the engine runs them: products that
are kept, packed inputs, and hidden states that wait, which no engine of the matrix has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

from tests.cost.activation_cases import GEOMETRY, settings_of
from tests.cost.matrix_predictions import Cost
from vdsgen.cost.settings import Settings
from vdsgen.spec.profile import Peak, Polynomial

NOTHING = {"saved": 0, "output": 0, "side": 0, "forward_transient": 0, "backward_transient": 0}

# Seven layers, of which the middle stage of three has A to D; latents take 4.
EMBED = {"saved": 8, "output": 9, "side": 2, "packed_output": 5}
BEFORE = {"saved": 70, "output": 10, "packed_output": 6}
A = {"saved": 100, "output": 20, "forward_transient": 1, "backward_transient": 200, "packed_output": 12,
     "selective_saved": 11, "selective_peak": 5000}  # fmt: skip
B = {"saved": 300, "output": 30, "forward_transient": 7, "backward_transient": 60, "packed_output": 16,
     "selective_saved": 33, "selective_peak": 90}  # fmt: skip
C = {"saved": 200, "output": 40, "packed_output": 22,
     "selective_saved": 40, "selective_forward_transient": 70, "selective_peak": 500}  # fmt: skip
D = {"saved": 900, "output": 50, "forward_transient": 9, "backward_transient": 130, "constant": 3}
FINAL = {"saved": 30, "output": 4, "backward_transient": 25}

# Ever more and then fewer hidden states wait; what is joined last was put aside first.
WAITING = [0, 10, 30, 30, 70, 30, 10, 0]
U_NET = [
    {"output": output, "waiting": waiting}
    for output, waiting in zip([10, 20, 30, 40, 50, 60, 70, 4], WAITING, strict=True)
]


class Case(NamedTuple):
    """One stage, and what is known of its activations."""

    name: str
    layers: Sequence[dict[str, int]]
    settings: Settings
    stage: int
    start: int
    stop: int
    expected: dict[str, int]
    gathered: tuple[int, ...] = ()
    """Weights of each layer, beyond the first 500 of which a recomputed one holds its own."""


def wrong_activations(cost: Cost) -> Iterator[str]:
    """Names of the figures that are not what was counted."""
    for case in (
        *kept_cases(),
        *packed_cases(),
        *alone_cases(),
        *waiting_cases(),
        *frozen_cases(),
        *unsaved_cases(),
    ):
        layers = [cost.layer_bytes.LayerBytes(**(NOTHING | layer)) for layer in case.layers]
        none = (0,) * (case.stop - case.start)
        growth = cost.gradients.GradientGrowth(
            0, none, 0, none, 0, 0, 0, gathered_by_layer=case.gathered, gathered_bytes=500
        )
        found = cost.activations.stage_activations(
            layers, case.settings, case.stage, case.start, case.stop, growth=growth
        )
        for name, expected in case.expected.items():
            if getattr(found, name) != expected:
                yield f"{name} of {case.name}: {getattr(found, name)} where {expected} was counted"
    yield from wrong_layers(cost)


def middle(
    name: str, interval: int, plain: int, kept: int, expected: dict[str, int], *, packs: bool = False,
    offload: bool = False, **changed: dict[str, int],
) -> Case:  # fmt: skip
    """A case of the middle stage, which runs one micro-batch, with some of its layers changed."""
    own = {"a": A, "b": B, "c": C, "d": D}
    layers = [EMBED, BEFORE, *[layer | changed.get(key, {}) for key, layer in own.items()], FINAL]
    settings = settings_of(3, interval, "fp32")._replace(
        stage_plain_layers=(plain,) * 3,
        stage_selective_layers=(kept,) * 3,
        gradient_accumulation_steps=1,
        activation_compression="int8" if packs else "none",
        offload_activations=offload,
    )
    return Case(name, layers, settings, 1, 2, 6, expected)


RECEIVED = 10 + 2
"""BEFORE's hidden state and EMBED's side tensor; what is sent is larger, so both have buffers."""
D_FREED = 900 + 40
"""When D's backward is through: what it saved, and C's output."""
SEGMENT = (100 + 20) + (300 + 30) + 7 + 30 + 2
"""A and B recomputed: both held, B's temporary, the gradients of the output and of the side tensor."""


def kept_cases() -> Iterator[Case]:
    """A segment of two layers, then one that keeps its products, then a plain one."""
    stash = 2 * RECEIVED + 30 + (40 + 40) + (900 + 50)
    yield middle("a segment, products, a plain layer", 2, 1, 1, {
        "buffer_bytes": RECEIVED + (50 + 2) + 3,
        "stash_bytes": stash,
        "forward_bytes": stash + 9,
        "backward_bytes": 130 - 50,  # D's output gradient has arrived in a buffer
    })  # fmt: skip
    yield middle("products recomputed", 2, 1, 1, {"backward_bytes": 2000 + 2 - D_FREED},
                 c={"selective_peak": 2000})  # fmt: skip
    yield middle("products, in forward", 2, 1, 1, {"forward_bytes": 2 * RECEIVED + 30 + (40 + 40) + 5000},
                 c={"selective_forward_transient": 5000})  # fmt: skip
    freed = D_FREED + 40 + 30  # and C's products with its input
    yield middle("backward of a segment", 2, 1, 1, {"backward_bytes": 100 + 3000 + 2 - freed},
                 a={"backward_transient": 3000})  # fmt: skip
    yield middle("a segment recomputed", 2, 1, 1, {"backward_bytes": SEGMENT - 7 + 3000 - freed},
                 b={"forward_transient": 3000})  # fmt: skip
    yield middle("the first of two with products", 1, 1, 2, {"backward_bytes": 3000 + 2 - freed},
                 b={"selective_peak": 3000})  # fmt: skip
    yield middle("the first of two segments", 2, 0, 0, {"backward_bytes": SEGMENT - 7 + 3000 - 30},
                 b={"forward_transient": 3000})  # fmt: skip
    # The last input waits on its way down beside the last output, then D's stays to be sent.
    yield middle("two segments offloaded", 2, 0, 0, {
        "stash_bytes": 2 * RECEIVED + 50 - 10,
        "host_bytes": 10 + 30,
        "forward_bytes": 2 * RECEIVED + 30 + 50,
    }, offload=True)  # fmt: skip
    yield middle("a segment offloaded before a plain layer", 3, 1, 0,
                 {"forward_bytes": 2 * RECEIVED + 40 + (900 + 50) + 9}, offload=True)  # fmt: skip


def packed_cases() -> Iterator[Case]:
    """The same with what waits packed: of hidden states of 10 and 30, 6 and 16 are left."""
    packed = 2 * RECEIVED + 6 + 16 + 40
    yield middle("packed inputs", 2, 1, 1, {
        "stash_bytes": 2 * RECEIVED - 10 + 6 + 16 + (40 + 40) + (900 + 50),
        "forward_bytes": packed + 40 + (900 + 50) + 9,  # the stage's own input has not gone yet
        "backward_bytes": 130 - 50,
    }, packs=True)  # fmt: skip
    yield middle("packing products", 2, 1, 1, {"forward_bytes": packed + 30 + 40 + 5000},
                 packs=True, c={"selective_forward_transient": 5000})  # fmt: skip
    yield middle("unpacked products", 2, 1, 1, {"backward_bytes": 2000 + 2 + 30 - D_FREED},
                 packs=True, c={"selective_peak": 2000})  # fmt: skip
    yield middle("an unpacked input", 2, 1, 1, {"backward_bytes": 100 + 3000 + 2 + 10 - D_FREED - 40 - 16},
                 packs=True, a={"backward_transient": 3000})  # fmt: skip
    yield middle("packed segments alone", 2, 0, 0, {"forward_bytes": 2 * RECEIVED + 6 + 16 + 30 + 50},
                 packs=True)  # fmt: skip
    yield middle("packing where all layers are plain", 2, 4, 0, {
        "stash_bytes": 2 * RECEIVED + 120 + 330 + 240 + 950,
        "forward_bytes": 2 * RECEIVED + 120 + 330 + 240 + 950 + 9,
    }, packs=True)  # fmt: skip
    first = middle("packed on the first stage", 1, 0, 0, {
        "buffer_bytes": (10 + 2) + 4,
        "stash_bytes": 4 + 5 + 10 + 2,
        "forward_bytes": 4 + 2 + 5 + 9 + 10,
        "backward_bytes": (70 + 10) + 9,
    }, packs=True)  # fmt: skip
    yield first._replace(stage=0, start=0, stop=2)


def alone_cases() -> Iterator[Case]:
    """One process: two layers that keep their products, and a plain one."""
    settings = settings_of(1, 1, "fp32").with_interval(1, 1, 2)._replace(gradient_accumulation_steps=1)
    first = {"output": 20, "selective_saved": 5, "selective_peak": 60}
    second = C | {"selective_peak": 50, "constant": 3}
    expected = {
        "buffer_bytes": 2 * 4 + 3,  # latents and target
        "stash_bytes": (5 + 20) + (40 + 40) + (30 + 4),
        "forward_bytes": (5 + 20) + (40 + 40) + 70,
        "backward_bytes": 25,
    }
    yield Case("one process that keeps products", [first, second, FINAL], settings, 0, 0, 3, expected)
    expected = {"backward_bytes": 2000 - (30 + 40) + (4000 - 500)}
    layers = [first, C | {"selective_peak": 2000}, FINAL]
    yield Case("gathered weights", layers, settings, 0, 0, 3, expected, gathered=(1000, 4000, 8000))


def waiting_cases() -> Iterator[Case]:
    """Segments of a U-Net hold their outputs, and what layers within put aside for later segments."""
    alone = settings_of(1, 2, "fp32")._replace(gradient_accumulation_steps=1)
    # Layer 1 puts 10 aside; 2 and 4 put their segments' inputs aside, which are there as outputs.
    stash = {"stash_bytes": (20 + 40 + 60 + 4) + 10}
    yield Case("a U-Net's pairs of layers", U_NET, alone, 0, 0, 8, stash)
    threes = alone._replace(activation_checkpoint_interval=3)
    # Layers 1 and 2 put 10 and 20 aside; what layer 4 does, 5 joins.
    yield Case("a U-Net's threes", U_NET, threes, 0, 0, 8, {"stash_bytes": (30 + 60 + 4) + 10 + 20})
    late = [U_NET[0] | {"waiting": 0}, *[{"output": 5, "waiting": size} for size in (0, 20, 50, 0)], FINAL]
    # Layer 2 puts its segment's input of 20 aside, layer 3 an output of its own of 30, joined in the third.
    yield Case("a later pair of layers", late, alone, 0, 0, 6, {"stash_bytes": (5 + 5 + 4) + 30})
    pipeline = settings_of(2, 0, "fp32")
    once = pipeline._replace(gradient_accumulation_steps=1)
    latents, crossing, sums = 4, 30 + 30, 10 + 20 + 30
    sends = {"buffer_bytes": crossing + latents, "stash_bytes": sums}
    yield Case("a U-Net that is sent", U_NET, once, 0, 0, 3, sends)
    slow = [*U_NET[:2], U_NET[2] | {"forward_transient": 7}, *U_NET[3:]]
    twice = {"peak_bytes": crossing + 2 * latents + 2 * sums + 7}
    yield Case("a U-Net that is sent from two slots", slow, pipeline, 0, 0, 3, twice)
    kept = 2 * crossing + latents  # received, its gradient, and the output, until the slot's next
    stash = {"buffer_bytes": crossing + latents, "idle_bytes": crossing + latents + kept}
    yield Case("a U-Net that is received", U_NET, once, 1, 3, 8, stash)
    two = {"buffer_bytes": crossing + 2 * latents + kept, "idle_bytes": crossing + 2 * latents + 2 * kept}
    yield Case("a U-Net that is received in two slots", U_NET, pipeline, 1, 3, 8, two)


FROZEN = {"output": 10, "trains": False}


def frozen_cases() -> Iterator[Case]:
    """Adapters: nothing is kept for the layers before the first that trains but what that is given."""
    alone = settings_of(1, 1, "fp32")._replace(gradient_accumulation_steps=1)
    layers = [FROZEN, FROZEN | {"output": 7}, {"saved": 100, "output": 20}, {"output": 30}, FINAL]
    stash = {"stash_bytes": 7 + 20 + 30 + 4}
    yield Case("a segment each", layers, alone, 0, 0, 5, stash)
    offloads = alone._replace(offload_activations=True)
    yield Case(
        "moved", layers, offloads, 0, 0, 5, {"stash_bytes": 4, "host_bytes": 7 + 20 + 30, "forward_bytes": 50}
    )
    pairs = alone._replace(activation_checkpoint_interval=2)
    yield Case("a frozen pair", layers, pairs, 0, 0, 5, stash | {"stash_bytes": 7 + 30 + 4})
    threes = alone._replace(activation_checkpoint_interval=3)
    yield Case("frozen layers in a segment that trains", layers, threes, 0, 0, 5, {"stash_bytes": 20 + 4})
    whole = alone._replace(activation_checkpoint_interval=5)
    yield Case("frozen layers in the only segment", layers, whole, 0, 0, 5, {"stash_bytes": 4})
    plain = alone.with_interval(1, 3)
    yield Case("plain ones after frozen ones", layers, plain, 0, 0, 5, {"stash_bytes": 7 + 120 + 30 + 34})
    none = alone._replace(activation_checkpoint_interval=0)
    yield Case("all plain", layers, none, 0, 0, 5, {"stash_bytes": 7 + 120 + 30 + 34})
    puts_aside = [FROZEN, FROZEN | {"waiting": 10}, {"output": 20, "waiting": 10}, {"output": 30}, FINAL]
    yield Case(
        "all plain, one input waits", puts_aside, none, 0, 0, 5, {"stash_bytes": 10 + 10 + 20 + 30 + 34}
    )
    yield Case("one input waits", puts_aside, alone, 0, 0, 5, {"stash_bytes": 20 + 20 + 30 + 4})
    goes_on = [*puts_aside[:2], FROZEN | {"output": 7, "waiting": 10}, *puts_aside[2:]]
    yield Case("all plain, it waits on", goes_on, none, 0, 0, 6, {"stash_bytes": 10 + 7 + 20 + 30 + 34})
    first = alone._replace(pipeline_parallel_size=2)
    yield Case("a first stage without its latents", layers, first, 0, 0, 4, {"stash_bytes": 7 + 20 + 30})
    trained = [{"output": 10}, *layers[1:]]
    yield Case("a first stage with them", trained, first, 0, 0, 4, {"stash_bytes": 4 + 10 + 7 + 20 + 30})
    later = {"stash_bytes": 2 * 10 + 10 + 7 + 20 + 30 + 4}
    yield Case("a later stage", [{"output": 10}, *layers], first, 1, 1, 6, later)


def unsaved_cases() -> Iterator[Case]:
    """Plain layers let go what they do not save of their inputs."""
    none = settings_of(3, 0, "fp32")._replace(gradient_accumulation_steps=1)
    layer = {"saved": 100, "output": 10, "unsaved_input": 8, "forward_transient": 5}
    layers = [layer] * 5
    # The clone of what was received is there to the forward's end, and the last layer's input in its own.
    held = 2 * 10 + 3 * (100 + 10 - 8)
    yield Case("plain", layers, none, 1, 1, 4, {"stash_bytes": held, "forward_bytes": held + 8 + 5 + 8})
    one = [{"output": 10}, layer, {"output": 3}]
    # The first layer's forward: what it did not save is the clone's.
    alone = {"stash_bytes": 20 + 100 + 10 - 8, "forward_bytes": 20 + 100 + 10 + 5}
    yield Case("the first alone", one, none, 1, 1, 2, alone)
    kept = none.with_interval(1, 2)
    # A checkpoint keeps the first one's input, and nobody the output that the second casts.
    half = {"stash_bytes": 2 * 10 + 10 + 2 * (100 + 10 - 8)}
    yield Case("after a segment", layers, kept, 1, 1, 4, half)


def wrong_layers(cost: Cost) -> Iterator[str]:
    """Layers of two samples, from profiles of 1 byte and more a sample."""
    plain = {"saved": 2 * 1, "output": 2 * 2, "side": 2 * 3, "forward_transient": 2 * 4}
    plain |= {"backward_transient": 2 * 5}
    untraced = dict.fromkeys(
        ("selective_saved", "selective_recomputed", "selective_forward_transient", "selective_peak"), 0
    ) | dict.fromkeys(("packed_output", "constant", "waiting", "unsaved_input"), 0)  # fmt: skip
    untraced |= {"trains": True}
    kept = {"selective_saved": 2 * 6, "selective_recomputed": 2 * 7}
    kept |= {"selective_forward_transient": 2 * 8, "selective_peak": 2 * 9}
    packed = {name: size + 2 * 10 for name, size in kept.items()} | {"packed_output": 2 * 11}
    costs = layer_costs(0)
    more = layer_costs(0, constant_bytes=of(12), selective=recomputation(0))
    more.packed = SimpleNamespace(output_bytes=of(11), selective=recomputation(10))
    for name, one, packs, expected in (
        ("neither traced", costs, False, plain | untraced),
        ("kept products", more, False, plain | untraced | {"constant": 2 * 12} | kept),
        ("packed products", more, True, plain | untraced | {"constant": 2 * 12} | packed),
    ):
        found = cost.layer_bytes.layer_bytes(profile([one], [0]), GEOMETRY, 2, "bf16", packed=packs)
        if found[0]._asdict() != expected:
            yield f"bytes of a layer, {name}"
    leaving = [layer_costs(0, unsaved_input_bytes=of(13)) for _ in range(3)]
    unsaved = cost.layer_bytes.layer_bytes(profile(leaving, [0, 1, -1]), GEOMETRY, 2, "bf16")
    if [layer.unsaved_input for layer in unsaved] != [2 * 13, 0, 2 * 13]:
        yield "what layers do not save, one of which puts its input aside"
    frozen = profile([layer_costs(0)], [0])
    frozen.layer_types["0"].trainable_parameters = 0
    if cost.layer_bytes.layer_bytes(frozen, GEOMETRY, 2, "bf16")[0].trains:
        yield "a layer without trainable parameters"
    steps = [layer_costs(10 * index) for index in range(6)]  # put out 4, 24, 44, 64, 84 and 104
    joined = profile(steps, [0, 1, 1, 0, -1, -1])
    waiting = [layer.waiting for layer in cost.layer_bytes.layer_bytes(joined, GEOMETRY, 2, "bf16")]
    if waiting != [0, 4, 4 + 24, 4 + 24, 4, 0]:
        yield f"what waits of a U-Net: {waiting}"


def profile(costs: list[Any], skips: list[int]) -> Any:
    """A model of so many types of layers, each of which is there once."""
    types = {
        str(index): SimpleNamespace(half=one, skips=skip, trainable_parameters=1)
        for index, (one, skip) in enumerate(zip(costs, skips, strict=True))
    }
    return SimpleNamespace(layer_types=types, layers=tuple(types))


def of(sample_bytes: int) -> Polynomial:
    return Polynomial(terms={"B": sample_bytes})


def layer_costs(more: int, **traced: Any) -> SimpleNamespace:
    """Of 1 byte to 5 a sample and so many more; what else was traced by name."""
    costs = SimpleNamespace(constant_bytes=None, unsaved_input_bytes=None, selective=None, packed=None)
    costs.saved_bytes, costs.output_bytes, costs.side_bytes = (of(size + more) for size in (1, 2, 3))
    costs.forward_transient_bytes, costs.backward_transient_bytes = (
        Peak(candidates=(of(size + more),)) for size in (4, 5)
    )
    return SimpleNamespace(**(vars(costs) | traced))


def recomputation(more: int) -> SimpleNamespace:
    """Of 6 bytes to 9 a sample and so many more."""
    return SimpleNamespace(
        saved_bytes=of(6 + more),
        recomputed_bytes=of(7 + more),
        forward_transient_bytes=of(8 + more),
        peak_bytes=of(9 + more),
    )
