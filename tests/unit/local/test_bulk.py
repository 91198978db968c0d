"""Many small files at once: what the module in C and the one in Python must both do, and do alike."""

from __future__ import annotations

import errno
import gc
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from b10_transfer.local import bulk
from b10_transfer.local.bulk import FilePart, portable
from tests.descriptors import opened_below

MODULES = [pytest.param(portable, id="portable")]
if bulk.is_native:
    from b10_transfer.local.bulk import _native

    MODULES.append(pytest.param(_native, id="native"))


@pytest.fixture(params=MODULES)
def module(request: pytest.FixtureRequest) -> Any:
    """The functions to test; typed by nobody, so that they can be called as they must not be."""
    return request.param


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


@pytest.fixture
def tree(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def part(path: str, data: bytes | bytearray = b"content", mode: int = 0o644, mtime_ns: int = 1) -> FilePart:
    """A whole file."""
    return (path, mode, mtime_ns, data, 0, len(data), 0)


def test_it_was_built_here() -> None:
    """Otherwise the half of these tests that matters most would silently not be run."""
    assert bulk.is_native


def test_files_are_written_with_folders_modes_and_times(module: Any, tree: int, folder: Path) -> None:
    content = b"0123456789"
    parts = [
        ("aa/bb/one", 0o640, 1_700_000_000_123_456_789, content, 2, 5, 0),
        ("aa/bb/two", 0o755, 0, bytearray(content), 0, 10, 0),
        ("aa/three", 0o400, -1, content, 3, 3, 0),
        ("four", 0o600, -1_500_000_001, content, 9, 10, 0),
        ("aa/bb/five", 0o600, 1, content, 0, 1, 0),
    ]
    module.write_files(tree, parts, 0o777)
    for path, mode, mtime_ns, data, first, last, _at in parts:
        assert (folder / path).read_bytes() == bytes(data[first:last])
        status = (folder / path).stat()
        assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (mode, mtime_ns)


def test_file_is_continued_where_it_was_left(module: Any, tree: int, folder: Path) -> None:
    module.write_files(tree, [("aa/file", 0o600, 1, b"first ", 0, 6, 0)], 0)
    module.write_files(tree, [("aa/file", 0o600, 1, b"second ", 0, 7, 6), ("th/other", 0o600, 1, b"", 0, 0, 0)], 0)
    module.write_files(tree, [("aa/file", 0o444, 77, b"third", 0, 5, 13)], 0)
    assert (folder / "aa/file").read_text() == "first second third"
    status = (folder / "aa/file").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o444, 77)


def test_content_is_taken_from_an_array_as_from_bytes(module: Any, tree: int, folder: Path) -> None:
    array = bytearray(b"of an array")
    module.write_files(tree, [part("one", array), part("two", b"of bytes"), part("three", array)], 0)
    assert [(folder / name).read_text() for name in ("one", "two", "three")] == [
        "of an array",
        "of bytes",
        "of an array",
    ]
    array.clear()  # nothing holds on to it


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_mode_is_given_whatever_creating_a_file_takes_away(module: Any, tree: int, folder: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        module.write_files(tree, [part("file", mode=0o666)], umask)
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "file").stat().st_mode) == 0o666


@pytest.mark.parametrize("umask", [0o777, 0o277])
def test_folder_is_usable_by_its_owner_whatever_the_umask(module: Any, tree: int, folder: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        module.write_files(tree, [part("aa/bb/file", mode=0o644)], umask)
    finally:
        os.umask(before)
    for made in ("aa", "aa/bb"):
        assert stat.S_IMODE((folder / made).stat().st_mode) == 0o700 | (0o755 & ~umask)
    assert stat.S_IMODE((folder / "aa/bb/file").stat().st_mode) == 0o644


def test_nothing_that_is_there_is_replaced(module: Any, tree: int, folder: Path) -> None:
    (folder / "file").write_text("as it was")
    (folder / "taken").mkdir()
    for path, error in (("file", FileExistsError), ("taken", FileExistsError), ("file/below", NotADirectoryError)):
        with pytest.raises(error) as raised:
            module.write_files(tree, [part("before"), part(path), part("behind")], 0)
        assert raised.value.filename == path
        assert sorted(os.listdir(folder)) == ["before", "file", "taken"]
        (folder / "before").unlink()
    assert (folder / "file").read_text() == "as it was"


def test_no_link_is_followed(module: Any, tree: int, folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("mine")
    (folder / "link").symlink_to(elsewhere)
    (folder / "file").symlink_to(elsewhere / "file")
    (folder / "new").symlink_to(elsewhere / "new")
    for content in (part("link/file"), part("file"), part("new"), ("file", 0o600, 1, b"abc", 0, 3, 2)):
        with pytest.raises(OSError):
            module.write_files(tree, [content], 0)
    assert [(path.name, path.read_text()) for path in elsewhere.iterdir()] == [("file", "mine")]


@pytest.mark.parametrize("path", ["", "/", "/absolute", "aa/", "aa//file", ".", "..", "aa/..", "../file", "aa/../file"])
def test_path_that_is_not_plain_is_refused(module: Any, tree: int, folder: Path, path: str) -> None:
    with pytest.raises(OSError) as raised:
        module.write_files(tree, [part(path)], 0)
    assert raised.value.errno == errno.EINVAL
    assert [name for _folder, _folders, names in os.walk(folder.parent) for name in names] == []


def test_tree_that_is_closed_is_an_error(module: Any) -> None:
    for path in ("file", "folder/file"):
        with pytest.raises(OSError) as raised:
            module.write_files(-1, [part(path)], 0)
        assert raised.value.errno == errno.EBADF


def test_name_that_is_too_long_is_an_error_of_the_system(module: Any, tree: int) -> None:
    for path in ("x" * 256, f"{'x' * 256}/file", f"{'x' * 5000}/file"):
        with pytest.raises(OSError) as raised:
            module.write_files(tree, [part(path)], 0)
        assert raised.value.errno == errno.ENAMETOOLONG


@pytest.mark.parametrize(("first", "last", "at"), [(-1, 1, 0), (0, 8, 0), (5, 4, 0), (8, 8, 0), (0, 1, -1)])
def test_part_outside_its_bytes_is_refused_before_anything_is_written(
    module: Any, tree: int, folder: Path, first: int, last: int, at: int
) -> None:
    with pytest.raises(ValueError, match="does not lie in its bytes"):
        module.write_files(tree, [part("before"), ("file", 0o600, 1, b"content", first, last, at)], 0)
    assert os.listdir(folder) == []


def test_error_says_which_file_and_those_before_it_are_there(module: Any, tree: int, folder: Path) -> None:
    with pytest.raises(FileExistsError) as raised:
        module.write_files(tree, [part("aa/one"), part("aa/two"), part("aa/one"), part("aa/three")], 0)
    assert raised.value.filename == "aa/one"
    assert sorted(os.listdir(folder / "aa")) == ["one", "two"]


def test_full_file_system_is_an_error_that_says_so(module: Any, tree: int) -> None:
    """By the limit of a file's size: the system refuses to write behind it, as it does where there is no room."""
    program = (
        "import os, resource, signal, sys\n"
        f"from {module.__name__} import write_files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"write_files({tree}, [('small', 384, 1, b'x', 0, 1, 0), ('large', 384, 1, bytes(2000), 0, 2000, 0)], 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], pass_fds=[tree], capture_output=True, text=True)
    assert "OSError: [Errno 27] File too large: 'large'" in done.stderr


def test_files_are_read_to_their_places(module: Any, tree: int, folder: Path) -> None:
    (folder / "aa").mkdir()
    (folder / "aa" / "one").write_bytes(b"first")
    (folder / "two").write_bytes(b"second")
    os.utime(folder / "two", ns=(5, -7))
    memory = bytearray(b"-" * 16)
    found = module.read_files(tree, [("two", 6, 8), ("aa/one", 5, 1)], memory)
    assert memory == b"-first--second--"
    two, one = (folder / "two").stat(), (folder / "aa/one").stat()
    assert found == [(6, 6, -7, two.st_ino), (5, 5, one.st_mtime_ns, one.st_ino)]
    memory.clear()  # nothing holds on to it


def test_file_that_became_shorter_or_longer_is_told(module: Any, tree: int, folder: Path) -> None:
    (folder / "file").write_bytes(b"12345")
    memory = bytearray(8)
    assert module.read_files(tree, [("file", 8, 0)], memory)[0][:2] == (5, 5)
    assert module.read_files(tree, [("file", 3, 5)], memory)[0][:2] == (3, 5)
    assert memory == b"12345123"


def test_file_that_cannot_be_read_is_named(module: Any, tree: int, folder: Path) -> None:
    (folder / "there").write_bytes(b"1")
    (folder / "link").symlink_to("there")
    (folder / "folder").mkdir()
    for path, error in (("missing", FileNotFoundError), ("link", OSError), ("folder", IsADirectoryError)):
        with pytest.raises(error) as raised:
            module.read_files(tree, [("there", 1, 0), (path, 1, 1)], bytearray(2))
        assert raised.value.filename == path
    with pytest.raises(OSError, match="Bad file descriptor"):
        module.read_files(-1, [("there", 1, 0)], bytearray(2))


def test_no_link_is_followed_on_the_way_to_a_file(module: Any, tree: int, folder: Path) -> None:
    (folder / "real").mkdir()
    (folder / "real" / "file").write_bytes(b"1")
    (folder / "link").symlink_to("real")
    with pytest.raises(OSError, match=r"Not a directory|symbolic links") as raised:
        module.read_files(tree, [("real/file", 1, 0), ("link/file", 1, 0)], bytearray(1))
    assert raised.value.filename == "link/file"


def test_nobody_waits_for_a_pipe_that_took_a_files_place(module: Any, tree: int, folder: Path) -> None:
    os.mkfifo(folder / "file")
    assert module.read_files(tree, [("file", 5, 0)], bytearray(5))[0][0] == 0


@pytest.mark.parametrize(
    ("size", "offset"), [(9, 0), (1, 8), (0, 9), (-1, 0), (1, -1), (1, sys.maxsize), (sys.maxsize, 1)]
)
def test_place_outside_the_memory_is_refused(module: Any, tree: int, folder: Path, size: int, offset: int) -> None:
    (folder / "file").write_bytes(bytes(100))
    with pytest.raises(ValueError, match="does not fit into the memory"):
        module.read_files(tree, [("file", size, offset)], bytearray(8))


@pytest.mark.parametrize(
    "misuse",
    [
        lambda module, tree: module.write_files(tree, 5, 0),
        lambda module, tree: module.write_files(tree, [5], 0),
        lambda module, tree: module.write_files(tree, [()], 0),
        lambda module, tree: module.write_files(tree, [("file", 0o600, 1, "text", 0, 1, 0)], 0),
        lambda module, tree: module.write_files(tree, [(b"file", 0o600, 1, b"x", 0, 1, 0)], 0),
        lambda module, tree: module.write_files(tree, [("file", None, 1, b"x", 0, 1, 0)], 0),
        lambda module, tree: module.write_files(tree, [part("before"), part("a\0b")], 0),
        lambda module, tree: module.write_files(
            tree, [part("before"), ("file", 0o600, 1, memoryview(b"x"), 0, 1, 0)], 0
        ),
        lambda module, tree: module.read_files(tree, 5, bytearray(1)),
        lambda module, tree: module.read_files(tree, [5], bytearray(1)),
        lambda module, tree: module.read_files(tree, [("file", "1", 0)], bytearray(1)),
        lambda module, tree: module.read_files(tree, [("a\0b", 1, 0)], bytearray(1)),
    ],
)
def test_misuse_is_an_error_and_no_crash(
    module: Any, tree: int, folder: Path, misuse: Callable[[ModuleType, int], object]
) -> None:
    with pytest.raises((TypeError, ValueError)):
        misuse(module, tree)
    assert os.listdir(folder) == []


def test_nothing_leaks(module: Any, tree: int, folder: Path) -> None:
    """Neither descriptors nor memory, whether it goes well or not."""
    (folder / "file").write_bytes(b"x" * 1000)

    def everything() -> None:
        array = bytearray(100_000)
        with pytest.raises(FileExistsError):
            module.write_files(tree, [part("aa/new", array), part("file", array)], 0)
        (folder / "aa" / "new").unlink()
        module.read_files(tree, [("file", 1000, 0)] * 20, array)
        for bad in ([("file", 1000, 0), ("gone", 1, 0)], [("file", 1000, 0), 5]):
            with pytest.raises((OSError, TypeError, ValueError)):
                module.read_files(tree, bad, array)
        with pytest.raises((TypeError, ValueError)):
            module.write_files(tree, [part("bb/new", array), 5], 0)

    everything()
    gc.collect()
    opened, resident = opened_below(folder), _resident_bytes()
    for _ in range(300):
        everything()
    gc.collect()
    assert opened_below(folder) == opened
    assert _resident_bytes() < resident + 10_000_000  # one array forgotten each time would be 30 MB


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_other_threads_go_on_meanwhile(module: Any, tree: int, folder: Path) -> None:
    """Each tree is written by one thread; several trees may be at the same time."""

    def fill(path: Path) -> None:
        path.mkdir()
        descriptor = os.open(path, os.O_RDONLY)
        array = bytearray(os.urandom(50_000))
        for number in range(50):
            module.write_files(descriptor, [part(f"{number}/{name}", array) for name in "abcd"], 0)
            again = bytearray(len(array))
            module.read_files(descriptor, [(f"{number}/{name}", len(array), 0) for name in "abcd"], again)
            assert again == array
        os.close(descriptor)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fill, [folder / str(number) for number in range(4)]))


NAMES = st.sampled_from(["a", "b", "..", ".", "", "x" * 255, "x" * 256, "é"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
PARTS = st.tuples(
    PATHS,
    st.integers(0, 0o777),
    st.integers(-(1 << 62), 1 << 62),
    st.binary(max_size=20),
    st.integers(-2, 22),
    st.integers(-2, 22),
    st.sampled_from([0, 0, 0, 1, 5]),
)


@pytest.mark.skipif(not bulk.is_native, reason="there is only one")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PARTS, max_size=5), st.lists(st.tuples(PATHS, st.integers(0, 30), st.integers(0, 30)), max_size=3))
def test_both_do_the_same(
    tmp_path_factory: pytest.TempPathFactory, parts: list[FilePart], places: list[tuple[str, int, int]]
) -> None:
    python, c = (_outcomes(module, tmp_path_factory.mktemp("tree"), parts, places) for module in (portable, _native))
    assert c == python


def _outcomes(module: Any, folder: Path, parts: list[FilePart], places: list[tuple[str, int, int]]) -> list[object]:
    tree = os.open(folder, os.O_RDONLY)
    memory = bytearray(40)
    try:
        return [
            _outcome(lambda: module.write_files(tree, parts, 0o022)),
            _outcome(lambda: [found[0] for found in module.read_files(tree, places, memory)]),
            bytes(memory),
            sorted(_described(folder)),
        ]
    finally:
        os.close(tree)


def _outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except OSError as error:
        return error.errno
    except ValueError as error:
        return str(error)


def _described(folder: Path) -> Iterator[tuple[str, int, int, bytes]]:
    for path in folder.rglob("*"):
        status = path.stat()
        if path.is_file():
            path.chmod(0o600)  # an ordinary user cannot read a file of mode 0, even his own
        content = path.read_bytes() if path.is_file() else b""
        times = status.st_mtime_ns if path.is_file() else 0
        yield str(path.relative_to(folder)), status.st_mode, times, content
