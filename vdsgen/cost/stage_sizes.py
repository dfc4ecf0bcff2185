"""What the optimizer of one pipeline stage is given to train, in elements."""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import NamedTuple

from vdsgen.spec.profile import ModelProfile


class StageSizes(NamedTuple):
    """What the optimizer of one stage is given, in elements."""

    parameters: int
    trainable_parameters: int
    largest_parameter: int
    counts: tuple[tuple[int, int], ...]
    """(elements of a trainable parameter, how many have as many): what ZeRO-3 rounds one by one."""

    @classmethod
    def of(cls, profile: ModelProfile, layers: range) -> StageSizes:
        """The stage that holds these pipeline layers. Frozen parameters are taken to come last."""
        counts: Counter[int] = Counter()
        parameters = trainable = 0
        for name, copies in Counter(profile.layers[index] for index in layers).items():
            layer = profile.layer_types[name]
            parameters += copies * layer.parameters
            trainable += copies * layer.trainable_parameters
            for elements in _trainable_sizes(layer.parameter_shapes, layer.trainable_parameters):
                counts[elements] += copies
        return cls(parameters, trainable, max(counts, default=0), tuple(sorted(counts.items())))

    @property
    def straddling_elements(self) -> int:
        """Of a parameter that lies across the end of a rank's share: expected size, where any element is as
        likely to be the share's last."""
        if not self.trainable_parameters:
            return 0
        squares = sum([count * elements * elements for elements, count in self.counts])
        return squares // self.trainable_parameters


def _trainable_sizes(shapes: tuple[tuple[int, ...], ...], trainable: int) -> list[int]:
    sizes = []
    for shape in shapes:
        if trainable <= 0:
            break
        sizes.append(prod(shape))
        trainable -= sizes[-1]
    return sizes
