from __future__ import annotations

import hashlib
import json

from vdsgen.spec.architecture import Vdt, architecture_sha256
from vdsgen.spec.canonical import canonical_json, sha256_of
from vdsgen.spec.lab import Link


def model(**changes: object) -> Vdt:
    sizes = {
        "in_channels": 4,
        "patch_size": 2,
        "hidden_size": 8,
        "depth": 1,
        "heads": 2,
        "mlp_hidden_size": 8,
    }
    return Vdt.model_validate({**sizes, **changes})


def test_equal_specs_have_equal_bytes() -> None:
    whole = Link.model_validate_json('{"latency_microseconds": 1, "bandwidth_gb_per_second": 24}')
    decimal = Link(bandwidth_gb_per_second=24.0, latency_microseconds=1.0)
    assert canonical_json(whole) == canonical_json(decimal)
    assert canonical_json(decimal) == b'{"bandwidth_gb_per_second":24.0,"latency_microseconds":1.0}'


def test_bytes_read_back_as_the_same_spec() -> None:
    assert Vdt.model_validate_json(canonical_json(model())) == model()


def test_hashes_are_of_the_bytes() -> None:
    assert sha256_of(model()) == hashlib.sha256(canonical_json(model())).hexdigest()


def test_an_architecture_is_its_sizes_and_not_its_name() -> None:
    assert architecture_sha256(model()) == architecture_sha256(model(name="other"))
    for key, value in {"depth": 2, "heads": 4, "condition": "class", "position": "learned"}.items():
        assert architecture_sha256(model()) != architecture_sha256(model(**{key: value}))
    assert "name" not in json.loads(canonical_json(model(), without=frozenset({"name"})))
