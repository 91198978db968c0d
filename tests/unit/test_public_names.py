"""The package's face."""

from __future__ import annotations

import inspect

import pytest

import b10_transfer
from b10_transfer import LoadReport, OperationStatus, SaveReport


def test_every_public_name_is_there() -> None:
    for name in b10_transfer.__all__:
        assert getattr(b10_transfer, name) is not None
    assert dir(b10_transfer) == sorted(b10_transfer.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'download'"):
        b10_transfer.download  # noqa: B018


def test_statuses_are_those_that_programs_branch_on() -> None:
    assert [status.name for status in OperationStatus] == ["SUCCESS", "ERROR", "DOES_NOT_EXIST", "SKIPPED"]


@pytest.mark.parametrize("function", ["load", "save", "load_compile_cache", "save_compile_cache"])
def test_every_argument_of_a_public_function_is_optional_and_named(function: str) -> None:
    parameters = inspect.signature(getattr(b10_transfer, function)).parameters.values()
    assert {parameter.kind for parameter in parameters} == {inspect.Parameter.KEYWORD_ONLY}
    assert {parameter.default for parameter in parameters} == {None}


@pytest.mark.parametrize("report_type", [LoadReport, SaveReport])
def test_report_needs_no_more_than_a_status_and_a_reason(report_type: type[LoadReport] | type[SaveReport]) -> None:
    report = report_type(OperationStatus.ERROR, "no luck")
    assert (report.status, report.reason, report.units, report.error) == (OperationStatus.ERROR, "no luck", 0, None)
