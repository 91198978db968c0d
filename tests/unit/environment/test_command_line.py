"""A recorded command line holds no secret, and its differences are told in words, whatever a store holds."""

from __future__ import annotations

import secrets
import string
import uuid

import pytest

from b10_transfer.environment import command_line
from b10_transfer.environment.command_line import MOST_CHARACTERS, masked, saved_with


@pytest.fixture(autouse=True)
def forget() -> None:
    command_line.record([])


def random_text(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--api-key", "hunter2"],
        ["--api-key=hunter2"],
        ["--api-key", "-hunter2"],
        ["--hf-token", "hunter2"],
        ["--ssl-keyfile-password=hunter2"],
        ["env", "HF_TOKEN=hunter2", "vllm"],
        ["env", "AWS_SECRET_ACCESS_KEY=hunter2"],
        ["--model", "https://user:hunter2@example.com/model"],
        ["--model=https://hunter2@example.com/model"],
        ["--model", "s3://bucket/model?X-Signature=hunter2"],
        ["-H", "hunter2"],
        ["-H", "Authorization: Bearer hunter2"],
        ["sh", "-c", "vllm serve model --api-key hunter2"],
        ["--config", '{"api_key": "hunter2"}'],
        ["--user=hunter2"],
        ["--proxy", "hunter2"],
        ["--x\n--api-key", "y hunter2"],
    ],
)
def test_secret_is_masked(arguments: list[str]) -> None:
    text = masked(["vllm", "serve", *arguments, "--port", "8000"])
    assert "hunter2" not in text
    assert "***" in text
    assert text.isprintable()


def test_random_text_is_masked_wherever_it_is() -> None:
    for _ in range(2000):
        for secret in (
            f"sk-{random_text(string.ascii_letters + string.digits, 32)}",
            f"hf_{random_text(string.ascii_letters, 34)}",
            secrets.token_hex(32),
            secrets.token_urlsafe(24),
        ):
            for arguments in ([secret], ["--option", secret], [f"--option={secret}"], [f"s3://bucket/{secret}/x"]):
                assert secret not in masked(arguments)
    assert "***" in masked([str(uuid.UUID("6f9619ff-8b86-4011-b42d-00c04fc964ff"))])


def test_names_of_models_and_values_are_kept() -> None:
    command = (
        "vllm serve meta-llama/Llama-3.1-8B-Instruct /models/Qwen3-Coder-480B-A35B-Instruct-FP8 --max-model-len 512 "
        "--dtype=bfloat16 -tp 8 --gpu-memory-utilization 0.9 --enable-prefix-caching"
    )
    assert masked(command.split()) == command


def test_length_is_bounded() -> None:
    assert len(masked(["word"] * 10_000)) <= MOST_CHARACTERS


def test_differences_are_told() -> None:
    command_line.record(["vllm", "serve", "--max-model-len", "256", "--port", "1", "--seed=1"])
    saved = "vllm serve model --max-model-len 512 --port 2 --seed 1 --enforce-eager"
    assert saved_with(["vllm serve other", saved]) == (
        "saved with --max-model-len 512, this server has --max-model-len 256; "
        "--enforce-eager, this server has no --enforce-eager"
    )
    assert saved_with([]) == ""
    assert saved_with(["vllm serve model --max-model-len 256 --seed 1 --port 9"]) == ""


def test_hostile_command_of_a_store_gives_a_short_printable_line() -> None:
    command_line.record(["vllm", "--max-model-len", "256"])
    for text in (
        "--\x1b[31m " * 9999,
        "--a\n--b\u202e x",
        "--x " + "y" * 10**6,
        "--" + "z" * 10**6,
        " ".join(f"--o{n}" for n in range(9999)),
    ):
        words = saved_with([text])
        assert len(words) < 1000
        assert words.isprintable()
        assert "\x1b" not in words
        assert "\u202e" not in words
