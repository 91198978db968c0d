"""What a person is told of a restore that a server did not use."""

from __future__ import annotations

from b10_transfer.launcher.explanation import why_unused
from b10_transfer.local.usage import CacheReport, CacheUse

MISSED = CacheReport((CacheUse("vllm", "/caches/vllm", 19, 0, 19),), warning="vllm: 19 units were restored and missed")
OFF = CacheReport((CacheUse("vllm", "/caches/vllm", 19, 0, 0),), warning="vllm: 19 units were restored, none used")


def test_variables_in_vllms_key_that_tend_to_differ_between_pods_are_named() -> None:
    said = why_unused(MISSED, {"VLLM_XGRAMMAR_CACHE_MB": "256", "VLLM_LOGGING_LEVEL": "DEBUG"})
    assert said.startswith(MISSED.warning)
    assert "VLLM_XGRAMMAR_CACHE_MB" in said
    assert "VLLM_LOGGING_LEVEL" not in said


def test_no_variable_is_named_where_none_of_them_is_set() -> None:
    assert why_unused(MISSED, {"VLLM_LOGGING_LEVEL": "DEBUG"}) == MISSED.warning


def test_no_variable_is_blamed_where_nothing_was_compiled() -> None:
    said = why_unused(OFF, {"VLLM_XGRAMMAR_CACHE_MB": "256"})
    assert "VLLM_XGRAMMAR_CACHE_MB" not in said
