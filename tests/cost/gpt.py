"""A GPT layer by its shapes, for figures that others published."""

from __future__ import annotations

from vdsgen.spec.profile import (
    Attention,
    Collective,
    LayerCosts,
    LayerType,
    ModelProfile,
    Peak,
    Polynomial,
    Product,
)

NOTHING = Polynomial(terms={})
TOKENS = Polynomial(terms={"BS": 1})


def transformer_layer(hidden: int, heads: int, tensor_parallel: int = 1, *, flash: bool) -> LayerType:
    """One rank's part of a layer in half precision, MLP four times as wide.

    Element-wise traffic is arXiv 2205.05198's count of activations, 34 bytes x hidden a token, each written
    once and read once, and twice that backward. Without flash, scores are written and read by softmax,
    mask and dropout (its 5 x heads x S bytes a token). Ranks that share it add up the hidden state after
    attention and after the MLP, and its gradient before both (arXiv 1909.08053, section 3).
    """
    width, t = 2, tensor_parallel
    products = tuple(
        Product(rows=TOKENS, columns=columns, depth=depth)
        for columns, depth in (
            (3 * hidden // t, hidden),
            (hidden, hidden // t),
            (4 * hidden // t, hidden),
            (hidden, 4 * hidden // t),
        )
    )
    attention = Polynomial(terms={"BSS": 4 * hidden // t})
    traffic = {"BS": 34 * hidden * width}
    if not flash:
        traffic["BSS"] = 2 * 5 * heads // t
    costs = _costs(
        matmul={"BS": sum(2 * one.columns * one.depth for one in products)},
        attention=attention.terms,
        forward=traffic,
    )
    shapes = (
        Attention(
            flops=attention, query_rows=TOKENS, key_rows=TOKENS, heads=heads // t, head_size=hidden // heads
        ),
    )
    layer = _layer(sum(one.columns * one.depth for one in products), costs, products, shapes if flash else ())
    if t == 1:
        return layer
    exchanged = Polynomial(terms={"BS": hidden})
    forward = Collective(kind="all_reduce", phase="forward", elements=exchanged, count=2)
    backward = forward.model_copy(update={"phase": "backward"})
    return layer.model_copy(update={"collectives": (forward, backward)})


def head(hidden: int, vocabulary: int) -> LayerType:
    """Logits of every token, and their softmax."""
    product = Product(rows=TOKENS, columns=vocabulary, depth=hidden)
    costs = _costs(matmul={"BS": 2 * vocabulary * hidden}, attention={}, forward={"BS": 10 * vocabulary})
    return _layer(vocabulary * hidden, costs, (product,), ())


def gpt(layer: LayerType, layers: int, last: LayerType) -> ModelProfile:
    return ModelProfile(
        model="gpt",
        architecture_sha256="0" * 64,
        torch_version="none",
        layer_types={"layer": layer, "head": last},
        layers=(*["layer"] * layers, "head"),
    )


def _costs(matmul: dict[str, int], attention: dict[str, int], forward: dict[str, int]) -> LayerCosts:
    return LayerCosts(
        saved_bytes=NOTHING,
        output_bytes=NOTHING,
        side_bytes=NOTHING,
        forward_transient_bytes=Peak(candidates=(NOTHING,)),
        backward_transient_bytes=Peak(candidates=(NOTHING,)),
        matmul_flops=Polynomial(terms=matmul),
        attention_flops=Polynomial(terms=attention),
        forward_traffic_bytes=Polynomial(terms=forward),
        backward_traffic_bytes=Polynomial(terms={key: 2 * value for key, value in forward.items()}),
    )


def _layer(
    parameters: int, costs: LayerCosts, products: tuple[Product, ...], attentions: tuple[Attention, ...]
) -> LayerType:
    return LayerType(
        parameters=parameters,
        trainable_parameters=parameters,
        parameter_shapes=((parameters,),),
        is_block=True,
        half=costs,
        single=costs,
        products=products,
        attentions=attentions,
    )
