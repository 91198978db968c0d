"""Which code of a program runs while something else does."""

from __future__ import annotations

import importlib
import json
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

pytest.importorskip("torch")
from b10_transfer.instant.watching import RanError, UnwatchableError, Watch, unwatched

pytestmark = pytest.mark.torch


def of_the_program() -> int:
    return 1


def test_code_of_the_program_is_noticed_by_name() -> None:
    with pytest.raises(RanError, match="of_the_program"), Watch() as watch:
        of_the_program()
        watch.check()


def test_code_of_python_and_of_other_threads_is_not_counted() -> None:
    with Watch() as watch:
        json.dumps({"a": [1]})
        thread = threading.Thread(target=of_the_program)
        thread.start()
        thread.join()
        watch.check()


def test_code_that_is_left_out_does_not_count_and_later_code_does() -> None:
    with pytest.raises(RanError, match="of_the_program"), Watch() as watch:
        with unwatched():
            of_the_program()
        watch.check()
        of_the_program()
        watch.check()


def test_what_runs_in_an_inner_watch_counts_in_the_outer_one() -> None:
    with pytest.raises(RanError, match="of_the_program"), Watch() as outer:
        with Watch():
            of_the_program()
        outer.check()


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="sys.monitoring has room for several tools")
def test_another_profiler_stays_in_place_and_nothing_is_kept() -> None:
    def profile(*_event: object) -> None:
        pass

    sys.setprofile(profile)
    try:
        with Watch() as watch:
            with pytest.raises(UnwatchableError, match="another profiler"):
                watch.check()
            assert sys.getprofile() is profile
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize(("folder", "counts"), [("site-packages", False), ("program", True)])
def test_import_of_an_installed_module_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, counts: bool
) -> None:
    """torch imports what is installed while it compiles, tqdm for example."""
    name = f"imported_from_{folder.replace('-', '_')}"
    (tmp_path / folder).mkdir()
    (tmp_path / folder / f"{name}.py").write_text("def runs():\n    return 1\n\nruns()\n")
    monkeypatch.syspath_prepend(tmp_path / folder)
    # pytest's own import hook is code of a program, too.
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if isinstance(finder, type)])
    with pytest.raises(RanError, match="imported_from_program") if counts else nullcontext(), Watch() as watch:
        importlib.import_module(name)
        watch.check()


def test_import_of_an_installed_module_that_is_removed_again_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """setuptools removes modules that it has imported from a folder of its own."""
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "imported_and_removed.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if isinstance(finder, type)])
    with Watch() as watch:
        importlib.import_module("imported_and_removed")
        del sys.modules["imported_and_removed"]
        watch.check()


def test_code_that_finds_modules_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Restored guards import the modules again, and compare what they hold."""
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "found_by_another.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    finders = [finder for finder in sys.meta_path if isinstance(finder, type)]
    monkeypatch.setattr(sys, "meta_path", [Finder(resolves), *finders])
    with Watch() as watch:
        importlib.import_module("found_by_another")
        watch.check()


def resolves(_name: str) -> None:
    return None


class Finder:
    def __init__(self, resolve: Callable[[str], None]) -> None:
        self._resolve = resolve

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        self._resolve(name)


def test_installed_module_that_was_imported_before_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "imported_before.py").write_text("def runs():\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    module = importlib.import_module("imported_before")
    with pytest.raises(RanError, match="runs"), Watch() as watch:
        module.runs()
        watch.check()
