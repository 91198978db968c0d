"""What is said of a restore, from what each cache holds afterwards."""

from __future__ import annotations

import pytest

from b10_transfer.local.usage import CacheUse, warning_of


def cache(name: str, restored: int, used: int | None, compiled: int) -> CacheUse:
    return CacheUse(name, f"/caches/{name}", restored, used, compiled)


HEADERS = cache("inductor_headers", 1, 1, 0)


def test_restored_cache_that_the_compiler_missed_is_warned_of_though_it_used_another() -> None:
    """vLLM found nothing of its own, and Inductor used the precompiled header to compile all of it anew."""
    said = warning_of([cache("vllm", 19, 0, 19), HEADERS])
    assert said.startswith("vllm: 19 units were restored and none was used, while 19 were compiled anew")
    assert "the compiler's own keys differ" in said


def test_every_cache_that_was_missed_is_named() -> None:
    said = warning_of([cache("inductor", 3, 0, 2), cache("triton", 4, 0, 4), HEADERS])
    assert said.startswith("inductor and triton: 7 units were restored and none was used, while 6 were compiled anew")


def test_what_was_compiled_in_another_cache_counts_where_nothing_at_all_was_used() -> None:
    said = warning_of([cache("vllm", 2, 0, 0), cache("inductor", 0, 0, 5)])
    assert said.startswith("vllm: 2 units were restored and none was used, while 5 were compiled anew")


def test_restore_of_which_nothing_was_used_is_warned_of_though_nothing_was_compiled() -> None:
    assert "nor was anything compiled in /caches/vllm" in warning_of([cache("vllm", 2, 0, 0)])


@pytest.mark.parametrize(
    "caches",
    [
        [],
        [cache("vllm", 0, 0, 19)],
        [cache("vllm", 19, 1, 0), HEADERS],
        [cache("vllm", 38, 1, 19)],
        [cache("vllm", 19, 1, 0), cache("inductor_headers", 1, 0, 0)],
        [cache("vllm", 19, None, 19)],
        [cache("vllm", 19, 0, 0), cache("triton", 3, None, 0)],
    ],
    ids=["nothing", "cold", "hit", "hit of one workload of two", "header not needed", "not told", "partly told"],
)
def test_nothing_is_said_of_a_restore_that_was_used_or_of_which_that_cannot_be_told(caches: list[CacheUse]) -> None:
    assert warning_of(caches) == ""
