"""docs/api.md: its examples run, and it describes every public name, argument and field."""

from __future__ import annotations

import dataclasses
import doctest
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import b10_transfer
from b10_transfer.environment import detect
from tests.command import Publisher
from tests.conftest import IsolatedEnv

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
EXAMPLES = {
    heading: block
    for heading, body in re.findall(r"(?ms)^### `(\w+)`$(.*?)(?=^##|\Z)", PAGE)
    for block in re.findall(r"(?ms)^```pycon\n(.*?)^```$", body)
}
NAMES = [name for name in b10_transfer.__all__ if name != "__version__"]
FUNCTIONS = [name for name in NAMES if inspect.isfunction(getattr(b10_transfer, name))]


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_prints_what_the_page_shows(
    isolated_env: IsolatedEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    group = b'{"child_paths": {"add.cubin": "add.cubin"}}'
    Publisher(isolated_env.store, detect()).publish(
        {"triton/KERNEL/": {"add.cubin": b"machine code", "__grp__add.json": group}}
    )
    example = doctest.DocTestParser().get_doctest(EXAMPLES[name], {}, name, "docs/api.md", 0)
    shown: list[str] = []
    runner = doctest.DocTestRunner()
    runner.run(example, out=shown.append)
    assert runner.failures == 0, "".join(shown)
    assert runner.tries > 1


def test_each_function_that_needs_no_server_has_an_example() -> None:
    assert set(EXAMPLES) >= set(FUNCTIONS) - {"save_vllm_compile_cache"}


@pytest.mark.parametrize("name", NAMES)
def test_page_describes_each_public_name(name: str) -> None:
    assert f"\n### `{name}`\n" in PAGE


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring_describes_each_argument_and_the_result(name: str) -> None:
    function = getattr(b10_transfer, name)
    text, signature = inspect.getdoc(function) or "", inspect.signature(function)
    described = re.findall(r"(?m)^    (\w+): ", text.partition("Args:\n")[2].partition("\n\n")[0])
    assert described == list(signature.parameters)
    assert ("Returns:\n" in text) == (signature.return_annotation != "None")


@pytest.mark.parametrize("name", [name for name in NAMES if dataclasses.is_dataclass(getattr(b10_transfer, name))])
def test_page_describes_each_field(name: str) -> None:
    kind: Any = getattr(b10_transfer, name)
    [body] = re.findall(rf"(?ms)^### `{name}`$(.*?)(?=^##)", PAGE)
    inherited = {
        field.name for base in kind.__bases__ if dataclasses.is_dataclass(base) for field in dataclasses.fields(base)
    }
    own = [field.name for field in dataclasses.fields(kind) if field.name not in inherited]
    assert re.findall(r"(?m)^- `(\w+): ", body) == own


@pytest.mark.parametrize("name", NAMES)
def test_types_of_signatures_and_fields_are_public(name: str) -> None:
    value = getattr(b10_transfer, name)
    annotations: dict[str, str] = {}
    if inspect.isfunction(value):
        annotations = value.__annotations__
    elif dataclasses.is_dataclass(value):
        annotations = {field.name: str(field.type) for field in dataclasses.fields(value)}
    named = set(re.findall(r"\b[A-Z]\w+", " ".join(annotations.values())))
    foreign = {"Any", "BaseException", "Logger", "Mapping", "None", "Observer", "StorePath"}
    assert named - foreign <= set(b10_transfer.__all__)
