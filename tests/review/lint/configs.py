"""Random DeepSpeed configs: legal ones put together from the engine's keys, and the same with mistakes in.

Everything follows from one seed. Most values are such as people write; a mistake is one of those that people
make: a slip in a key, a value of another type, a number in quotes, "auto", a key in the wrong section, a
removed key, a batch that does not add up, two settings that exclude each other.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import hjson

from tests.review.lint.oracle import Case
from vdsgen.catalog.engine_keys import EngineKey, engine_data, engine_section

Config = dict[str, Any]
WORLD_SIZES = (1, 4)
SIZES = (1, 2, 64, 1000, 4096, 500_000, 50_000_000, 500_000_000)
WORDS = ("auto", "true", "none", "cpu", "4", "1e5", "fp16", "", "yes", "0")
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    3,
    1.5,
    4.0,
    1e5,
    [],
    {},
    [1],
    {"enabled": True},
    *WORDS,
)
LEFT_OUT = frozenset(
    {
        "/expert_parallel",  # needs a model with experts
        "/wandb",
        "/comet",  # need packages and accounts
        "/autotuning",  # ends the process at its profiling step
        "/hybrid_engine",  # for language models that generate
        "/weight_quantization",  # read by zero.Init, which no config calls
    }
)
"""Sections that legal configs are made without; mistakes may still bring them in."""


def cases(number: int, seed: int) -> Iterator[Case]:
    """`number` cases, the same for the same seed."""
    for index in range(number):
        yield case(random.Random(f"{seed}:{index}"), f"{seed}:{index}")


def case(rng: random.Random, origin: str) -> Case:
    world_size = rng.choice(WORLD_SIZES)
    stages = rng.choice((0, 0, 0, 0, 1)) if world_size == 1 else rng.choice((0, 0, 0, 0, 2))
    config = legal(rng, world_size // max(1, stages), pipeline=stages > 0)
    mistakes = rng.choice((0, 0, 1, 1, 1, 2, 3))
    names = []
    for _ in range(mistakes):
        mistake = rng.choice(MISTAKES)
        names.append(mistake.__name__.strip("_"))
        mistake(rng, config)
    text = json.dumps(config, indent=rng.choice((None, 2)))
    if rng.random() < 0.1:
        text = damaged(rng, text)
        names.append("damaged")
    return Case(text, world_size, stages, names_no_optimizer(text), f"{origin} {'+'.join(names) or 'legal'}")


def names_no_optimizer(text: str) -> bool:
    """Whether the training code has to bring the optimizer."""
    try:
        return not hjson.loads(text)["optimizer"]["type"]
    except Exception:
        return True


def legal(rng: random.Random, data_parallel_size: int, *, pipeline: bool) -> Config:
    """A config as somebody might write it who knows the keys; not everything in it need get along."""
    micro, steps = rng.choice((1, 2, 4)), rng.choice((1, 1, 2, 4))
    batch = {
        "train_batch_size": micro * steps * data_parallel_size,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": steps,
    }
    for key in rng.choice(((), (), ("train_batch_size",), ("train_micro_batch_size_per_gpu",))):
        del batch[key]
    config: Config = dict(batch)
    if rng.random() < 0.9:
        config["optimizer"] = optimizer(rng)
    if rng.random() < 0.4:
        config["scheduler"] = scheduler(rng)
    dtype = rng.choice(("fp32", "fp16", "bf16", "bf16"))
    if dtype != "fp32":
        config[dtype] = {"enabled": True, **some(rng, f"/{dtype}", most=2)}
    if rng.random() < 0.8:
        config["zero_optimization"] = zero(rng, pipeline)
    for pointer in rng.sample(SECTIONS, rng.choice((0, 1, 2, 3))):
        config.setdefault(pointer[1:], some(rng, pointer, most=3))
    config |= some(rng, "", most=4)
    return config


def zero(rng: random.Random, pipeline: bool) -> Config:
    section: Config = {
        "stage": rng.choice((0, 1)) if pipeline else rng.choice((0, 1, 2, 3, 3)),
        **some(rng, "/zero_optimization", most=4),
    }
    for name in ("offload_optimizer", "offload_param"):
        if rng.random() < 0.15:
            inner = some(rng, f"/zero_optimization/{name}", most=2)
            section[name] = {"device": rng.choice(("cpu", "cpu", "none", "nvme")), **inner}
    return section


def optimizer(rng: random.Random) -> Config:
    name = rng.choice(("AdamW", "AdamW", "Adam", "adam", "Lion", "Adagrad", "SGD", "Muon", "RMSprop"))
    params: Config = {"lr": rng.choice((1e-3, 1e-4, 3e-5))}
    if name.lower() in ("adam", "adamw"):
        params |= {"torch_adam": True} if rng.random() < 0.6 else {}
        params |= {"betas": [0.9, 0.95]} if rng.random() < 0.5 else {}
        params |= {"eps": 1e-8} if rng.random() < 0.3 else {}
    if rng.random() < 0.5:
        params["weight_decay"] = rng.choice((0, 0.01, 0.1))
    return {"type": name, "params": params}


def scheduler(rng: random.Random) -> Config:
    name = rng.choice(("WarmupLR", "WarmupDecayLR", "WarmupCosineLR", "OneCycle", "LRRangeTest", "StepLR"))
    by_name: dict[str, Config] = {
        "WarmupLR": {"warmup_min_lr": 0, "warmup_max_lr": 1e-3, "warmup_num_steps": 10},
        "WarmupDecayLR": {"total_num_steps": 100, "warmup_num_steps": 10},
        "WarmupCosineLR": {"total_num_steps": 100, "warmup_num_steps": 10},
        "OneCycle": {"cycle_min_lr": 1e-4, "cycle_max_lr": 1e-3},
        "LRRangeTest": {"lr_range_test_step_size": 100},
        "StepLR": {"step_size": 30},
    }
    return {"type": name, "params": by_name[name]}


def some(rng: random.Random, pointer: str, *, most: int) -> Config:
    """A few keys of a section with values of their types."""
    section = engine_section(pointer)
    assert section is not None, pointer
    usable = [
        (name, key)
        for name, key in section.keys.items()
        if key.removed is None
        and key.section is None
        and key.kind["type"] not in ("object", "no JSON value", "dict")
        and not (pointer == "" and name.startswith(("train_", "gradient_acc")))
        and not name.endswith("parallel_size")
        and name not in ("type", "params", "device")
    ]  # fmt: skip
    chosen = rng.sample(usable, min(len(usable), rng.randint(0, most)))
    return {name: value(rng, key) for name, key in chosen}


def value(rng: random.Random, key: EngineKey) -> Any:
    """A value of the key's type."""
    kind = key.kind
    if kind["type"] == "union":
        kind = rng.choice(kind["members"])
    if kind.get("optional") and rng.random() < 0.1:
        return None
    if "choices" in kind:
        return rng.choice(kind["choices"])
    if kind["type"] == "bool":
        return rng.random() < 0.5
    if kind["type"] == "int":
        whole = key.default if isinstance(key.default, int) else 1
        return max(rng.choice((*SIZES, whole)), kind.get("gt", -1) + 1)
    if kind["type"] == "float":
        usual = key.default if isinstance(key.default, float) else 0.5
        return rng.choice((0.25, 0.5, 0.9, 1.0 if kind.get("lt") != 1.0 else 0.75, usual))
    if kind["type"] == "list":
        return []
    return rng.choice(("runs", "job", "a"))


SECTIONS = sorted(
    pointer
    for pointer in engine_data()["sections"]
    if pointer.count("/") == 1
    and pointer not in LEFT_OUT | {"/optimizer", "/scheduler", "/zero_optimization", "/fp16", "/bf16"}
)


def objects(config: Any) -> list[Config]:
    """All objects in a config, itself first."""
    if not isinstance(config, dict):
        return []
    return [config, *(inner for value in config.values() for inner in objects(value))]


def _place(rng: random.Random, config: Config) -> tuple[Config, str] | None:
    filled = [inner for inner in objects(config) if inner]
    if not filled:
        return None
    inner = rng.choice(filled)
    return inner, rng.choice(list(inner))


def _other_value(rng: random.Random, config: Config) -> None:
    place = _place(rng, config)
    if place:
        place[0][place[1]] = rng.choice(ODD_VALUES)


def _in_quotes(rng: random.Random, config: Config) -> None:
    place = _place(rng, config)
    if place and not isinstance(place[0][place[1]], dict | list):
        place[0][place[1]] = json.dumps(place[0][place[1]]).strip('"')


def _slip(rng: random.Random, config: Config) -> None:
    place = _place(rng, config)
    if place:
        key = place[1]
        at = rng.randrange(len(key) or 1)
        slips = (key[:at] + key[at + 1 :], key[:at] + "x" + key[at:], key.replace("_", "-"), key + "s")
        place[0][rng.choice(slips)] = place[0].pop(key)


def _moved(rng: random.Random, config: Config) -> None:
    place = _place(rng, config)
    if place:
        moved = place[0].pop(place[1])
        rng.choice(objects(config))[place[1]] = moved


def _left_out(rng: random.Random, config: Config) -> None:
    place = _place(rng, config)
    if place:
        del place[0][place[1]]


def _number(rng: random.Random, config: Config) -> None:
    numbers = [
        (inner, key)
        for inner in objects(config)
        for key, value in inner.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    if numbers:
        inner, key = rng.choice(numbers)
        inner[key] = rng.choice((0, -1, 3, 7, inner[key] * 2, inner[key] + 1, 0.5, 1e9))


def _section_key(rng: random.Random, config: Config) -> None:
    """A key of some section, in that section, with any value."""
    pointer = rng.choice(sorted(engine_data()["sections"]))
    node = config
    for part in pointer.split("/")[1:]:
        inner = node.setdefault(part, {})
        if not isinstance(inner, dict):
            return
        node = inner
    key = rng.choice(sorted(engine_data()["sections"][pointer]["keys"]))
    node[key] = rng.choice(ODD_VALUES)


def _removed(rng: random.Random, config: Config) -> None:
    config[rng.choice(("amp", "sparse_attention", "curriculum_learning", "elasticity", "nebula"))] = {}


def _both_halves(rng: random.Random, config: Config) -> None:
    config["fp16"], config["bf16"] = {"enabled": True}, {"enabled": True}


def _stage(rng: random.Random, config: Config) -> None:
    section = config.get("zero_optimization")
    if isinstance(section, dict):
        section["stage"] = rng.choice((0, 1, 2, 3, 4))


def _grad_accumulation(rng: random.Random, config: Config) -> None:
    config["data_types"] = {"grad_accum_dtype": rng.choice(("fp32", "bf16", "fp16"))}


def _optimizer_param(rng: random.Random, config: Config) -> None:
    section = config.get("optimizer")
    if isinstance(section, dict) and isinstance(section.get("params"), dict):
        name = rng.choice(
            ("lr", "betas", "eps", "momentum", "max_grad_norm", "warmup", "fused", "adam_w_mode")
        )
        section["params"][name] = rng.choice((True, 0.9, 1.0, [0.9, 0.999], "auto", None, 1, -1.0, [0.9]))


def _scheduler_param(rng: random.Random, config: Config) -> None:
    section = config.get("scheduler")
    if isinstance(section, dict) and isinstance(section.get("params"), dict):
        names = (
            "warmup_num_steps",
            "total_num_steps",
            "warmup_type",
            "warmup_max_lr",
            "last_batch_iteration",
        )
        section["params"][rng.choice(names)] = rng.choice(
            (0, -1, 5, 1.5, "linear", "log", "auto", None, "cosine")
        )


MISTAKES: tuple[Callable[[random.Random, Config], None], ...] = (
    _other_value,
    _other_value,
    _in_quotes,
    _slip,
    _slip,
    _moved,
    _left_out,
    _number,
    _number,
    _section_key,
    _section_key,
    _removed,
    _both_halves,
    _stage,
    _grad_accumulation,
    _optimizer_param,
    _scheduler_param,
)


def damaged(rng: random.Random, text: str) -> str:
    """The text with one character gone, doubled or changed, or in one of Hjson's ways."""
    at = rng.randrange(len(text))
    ways = (
        text[:at] + text[at + 1 :],
        text[:at] + text[at] + text[at:],
        text[:at] + rng.choice("{}[],:\"'#x0 \n") + text[at + 1 :],
        text.replace(",", ",\n", 1).replace("true", "true // on", 1),
        text[:-1] + ",}",
    )
    return rng.choice(ways)
