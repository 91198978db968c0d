"""The server of ``run`` is found in the arguments without click, because click may be broken."""

from __future__ import annotations

import click
import pytest

from b10_transfer import __main__ as entry
from b10_transfer.cli.run import command


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--", "vllm", "serve", "--store", "x"],
        ["run", "vllm", "serve", "--store", "x"],
        ["run", "--store", "/s", "--namespace=n", "--", "vllm", "serve", "--store", "x"],
        ["run", "--namespace", "--", "--flag", "vllm", "serve", "--store", "x"],
    ],
)
def test_server_is_the_rest_after_the_options(arguments: list[str]) -> None:
    assert entry.server_of(arguments) == ["vllm", "serve", "--store", "x"]


@pytest.mark.parametrize("arguments", [[], ["load"], ["--version"], ["run"], ["run", "--help"], ["run", "--"]])
def test_other_arguments_name_no_server(arguments: list[str]) -> None:
    assert entry.server_of(arguments) == []


def test_options_that_take_a_value_are_known() -> None:
    options = [option for option in command.params if isinstance(option, click.Option) and not option.is_flag]
    assert {name for option in options for name in option.opts} == entry._WITH_VALUE


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "--require-hit", "--", "vllm", "serve"], True),
        (["run", "--on-compile", "exit", "--require-hit", "vllm", "serve"], True),
        (["run", "--", "vllm", "serve", "--require-hit"], False),
        (["run", "vllm", "--require-hit"], False),
    ],
)
def test_option_that_requires_a_hit_is_found_before_the_server(arguments: list[str], expected: bool) -> None:
    assert entry.requires_hit(arguments, entry.server_of(arguments)) is expected
