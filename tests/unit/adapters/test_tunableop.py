"""TunableOp's results: taken only where their variable says, and merged line by line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b10_transfer import OperationStatus, load, save
from b10_transfer.adapters.base import Unit, UnitKind
from b10_transfer.adapters.tunableop import TunableOpAdapter, TunedTable
from b10_transfer.config.reader import EnvReader

if TYPE_CHECKING:
    from tests.conftest import FillTree, IsolatedEnv

ADAPTER, TABLE = TunableOpAdapter(), TunedTable()
VALIDATORS = "Validator,PT_VERSION,2.13.0\nValidator,GCN_ARCH_NAME,gfx942:sramecc+:xnack-\n"
NAMES = st.text(st.characters(codec="utf-8", categories=["Lu", "Ll", "Nd"], include_characters="_"), min_size=1)
SOLUTIONS = st.sampled_from(["Default", "Gemm_Hipblaslt_1219,1.262", "Gemm_Rocblas_1216,0.033,a signature"])
LINES = st.dictionaries(st.tuples(st.sampled_from(["Gemm_float_NT", "Gemm_half_TN"]), NAMES), SOLUTIONS, max_size=4)


def table(lines: dict[tuple[str, str], str], validators: str = VALIDATORS) -> bytes:
    return (validators + "".join(f"{op},{parameters},{found}\n" for (op, parameters), found in lines.items())).encode()


def lines_of(data: bytes) -> dict[tuple[str, str], str]:
    read = TABLE.read(data)
    return {(op, parameters): found for op, of in read.items() if op != "Validator" for parameters, found in of.items()}


@given(LINES, LINES, LINES)
def test_merging_is_associative_and_keeps_the_format(
    one: dict[tuple[str, str], str], two: dict[tuple[str, str], str], three: dict[tuple[str, str], str]
) -> None:
    a, b, c = table(one), table(two), table(three)
    merged = TABLE.merge(TABLE.merge(a, b), c)
    assert TABLE.read(merged) == TABLE.read(TABLE.merge(a, TABLE.merge(b, c)))
    assert lines_of(merged) == one | two | three
    assert merged.startswith(VALIDATORS.encode())
    assert TABLE.merge(merged, merged) == merged


@given(LINES, LINES)
def test_order_matters_for_conflicts_alone(one: dict[tuple[str, str], str], two: dict[tuple[str, str], str]) -> None:
    forth, back = lines_of(TABLE.merge(table(one), table(two))), lines_of(TABLE.merge(table(two), table(one)))
    assert (forth, back) == (one | two, two | one)


@pytest.mark.parametrize("other", ["Validator,PT_VERSION,2.14.0\n", "Validator,PT_VERSION,2.13.0\n"])
def test_results_of_other_versions_are_not_mixed_in(other: str) -> None:
    """A validator that differs, or one that is missing."""
    older, newer = table({("Gemm", "a"): "Default"}, other), table({("Gemm", "b"): "Default"})
    assert TABLE.merge(older, newer) == newer


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"Validator,PT_VERSION,2.13.0",
        b"Gemm,a,Default\n",
        b"Validator,PT_VERSION,2.13.0\nGemm,a\n",
        b"Validator,PT_VERSION,2.13.0\n\n",
        b"Validator,PT_VERSION,2.13.0\nGemm,,Default\n",
        b"Validator,PT_VERSION,2.13.0\nGemm,a,De\0fault\n",
        b"Validator,PT_VERSION,2.13.0\nGemm,a,\xff\n",
        b"name,password,role\nroot,secret,admin\n",
    ],
    ids=ascii,
)
def test_what_torch_does_not_write_is_malformed(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        TABLE.read(data)


def test_first_of_several_lines_about_the_same_counts_as_in_torch() -> None:
    twice = f"{VALIDATORS}Gemm,a,Gemm_Rocblas_1,0.1\nGemm,a,Default,0.2\n".encode()
    assert lines_of(twice) == {("Gemm", "a"): "Gemm_Rocblas_1,0.1"}


@pytest.mark.parametrize("name", ["tunableop_results0.csv", "tunableop_results_full0.csv", "gemm.tunable_op-12.csv"])
def test_file_of_a_device_is_a_unit(name: str) -> None:
    assert ADAPTER.unit_of(name) == Unit(name, UnitKind.STEM)


@pytest.mark.parametrize(
    "path", ["results0.csv", "customers1.csv", "tunableop_untuned0.csv", "x/tunableop0.csv", "tunableop0.csv.bak"]
)
def test_other_files_belong_to_nobody(path: str) -> None:
    assert ADAPTER.unit_of(path) is None


@pytest.mark.parametrize("name", ["tunableop_results.csv", "tunableop_results%d.csv", "gfx942_tunableop_%d_full.csv"])
def test_folder_of_the_file_is_the_cache(name: str) -> None:
    assert ADAPTER.locate(EnvReader({"PYTORCH_TUNABLEOP_FILENAME": f"/cache/op/{name}"})) == Path("/cache/op")


@pytest.mark.parametrize(
    "value",
    ["tunableop_results.csv", "./tunableop%d.csv", "~/tunableop.csv", "/cache/%d/tunableop.csv", "/cache/skinny%d.csv"],
)
def test_file_in_a_place_or_of_a_name_that_is_not_taken_is_named(value: str, caplog: pytest.LogCaptureFixture) -> None:
    assert ADAPTER.locate(EnvReader({"PYTORCH_TUNABLEOP_FILENAME": value})) is None
    assert f"PYTORCH_TUNABLEOP_FILENAME={value}" in caplog.text


def test_without_the_variable_nothing_is_taken_from_the_working_directory(
    isolated_env: IsolatedEnv, fill: FillTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "work", {"tunableop_results0.csv": table({("Gemm", "a"): "Default"})})
    monkeypatch.chdir(tmp_path / "work")
    assert save().status is OperationStatus.SKIPPED
    assert ADAPTER.locate(EnvReader({})) is None


def test_pods_that_tuned_different_shapes_give_all_of_them_to_the_next(
    isolated_env: IsolatedEnv, fill: FillTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pod(name: str) -> Path:
        monkeypatch.setenv("PYTORCH_TUNABLEOP_FILENAME", str(tmp_path / name / "tunableop_results%d.csv"))
        return tmp_path / name

    fill(pod("first"), {"tunableop_results0.csv": table({("Gemm", "a"): "Default"}), "customers0.csv": b"private"})
    assert save().files == 1
    fill(pod("second"), {"tunableop_results0.csv": table({("Gemm", "b"): "Default"})})
    assert save().units == 1
    fill(pod("third"), {"tunableop_results0.csv": VALIDATORS.encode() + b"Gemm,c,Defa"})  # being written
    assert save().status is OperationStatus.SKIPPED
    root = pod("fourth")
    assert load().status is OperationStatus.SUCCESS
    assert lines_of((root / "tunableop_results0.csv").read_bytes()) == {
        ("Gemm", "a"): "Default",
        ("Gemm", "b"): "Default",
    }
