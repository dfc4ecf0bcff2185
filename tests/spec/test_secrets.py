from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdsgen.spec.secrets import has_credentials, is_secret, is_secret_name, masked


@pytest.mark.parametrize(
    "name",
    [
        "WANDB_API_KEY", "COMET_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN",
        "GOOGLE_APPLICATION_CREDENTIALS", "api_key",
        "apikey", "password", "NCCL_SECRET",
    ],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    ["max_tokens", "tokenizer", "text_tokens", "PYTHONPATH", "PYTHONHASHSEED", "NCCL_DEBUG",
    "PYTHON_KEYRING_BACKEND",
     "key", "monkey", "author", "hidden_size", "UCX_TLS", "comm_max_tokens_per_rank", "max_out_tokens"],
)  # fmt: skip
def test_other_names(name: str) -> None:
    assert not is_secret_name(name)


def test_a_url_with_a_password_is_a_secret_whatever_its_name() -> None:
    assert is_secret("MLFLOW_TRACKING_URI", "https://lab:hunter2@mlflow.example/")
    assert not has_credentials("https://mlflow.example/a:b@c")
    assert not has_credentials("git@host:repository")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"api_key": "0123", "project": "clips"}', '{"api_key": "****", "project": "clips"}'),
        ("  api_key: 0123", "  api_key: ****"),
        ("export HF_TOKEN=hf_1; x", "export HF_TOKEN=****; x"),
        ('"api_key": null', '"api_key": null'),
        ("max_tokens: 77", "max_tokens: 77"),
    ],
)
def test_values_of_secrets_are_masked(text: str, expected: str) -> None:
    assert masked(text).replace("*****", "****") == expected


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60))
def test_masking_keeps_the_length(text: str) -> None:
    for written in (text, f'"api_key": "{text}"', f"token: {text}"):
        assert len(masked(written)) == len(written)
