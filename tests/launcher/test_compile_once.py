"""Of two replicas that start together with nothing saved, the second one's server waits for what the first compiles."""

from __future__ import annotations

from pathlib import Path

from .pod import LONG, Pod, wait_until


def test_second_server_starts_when_the_first_has_saved_and_compiles_nothing(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    second = Pod(tmp_path / "second")
    second.variables["B10_STORE"] = str(pod.store)
    try:
        # Slow to start: the second one asks while it compiles.
        first_run = pod.run(B10_WAIT_FOR_COMPILE_SECONDS=LONG, FAKE_START_S="2")
        wait_until(lambda: list(pod.store.glob("v1/*/*/leases/compile.*")), "the lease to compile")
        second_run = second.run(B10_WAIT_FOR_COMPILE_SECONDS=LONG)
        second_run.says("the server is ready")
        assert (len(second.noted("hit")), len(second.noted("compiled"))) == (2, 0)
        first_run.says("save: SUCCESS")
    finally:
        second.close()


def test_file_that_a_probe_looks_for_is_made_whatever_comes_of_the_load(pod: Pod) -> None:
    loaded = pod.path / "loaded"
    run = pod.run(B10_LOADED_FILE=str(loaded), B10_STORE="/no/such/mount/store")
    wait_until(loaded.exists, "the file")
    run.says("load failed")
    other = pod.run(B10_LOADED_FILE="/no/such/folder/loaded")
    other.says("B10_LOADED_FILE=/no/such/folder/loaded cannot be created")
