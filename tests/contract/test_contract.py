"""The contract of ``b10_transfer.testing``, used as another package uses it: it finds the faults of faulty stores."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = """
import io
import pytest
from b10_transfer.testing import MemoryStore, StoreContract, StorePlace


class Place(StorePlace):
    def __init__(self, kind):
        self.store = kind()

    def open(self):
        return self.store

    def read(self, name):
        return self.store._objects.get(name, (None,))[0]

    def write(self, name, data):
        self.store._objects[name] = (data, self.store.now())

    def delete(self, name):
        del self.store._objects[name]


class Replaces(MemoryStore):
    def create(self, name, source):
        self._objects.pop(name, None)
        return super().create(name, source)


class ListsItsOwn(MemoryStore):
    def __init__(self):
        super().__init__()
        self.created = set()

    def create(self, name, source):
        self.created.add(name)
        return super().create(name, source)

    def list(self, folder):
        return [info for info in super().list(folder) if info.name in self.created]


class AppearsEarly(MemoryStore):
    def create(self, name, source):
        if name in self._objects:
            return False
        self._objects[name] = (b"", self.now())
        self._objects[name] = (bytes(source.read()), self.now())
        return True


class Sweeps(MemoryStore):
    def remove_abandoned(self, older_than_s):
        self._objects.clear()
        return 0


def contract(kind):
    class TestStore(StoreContract):
        @pytest.fixture
        def place(self):
            return Place(kind)

    return TestStore


TestSound = contract(MemoryStore)
TestReplaces = contract(Replaces)
TestListsItsOwn = contract(ListsItsOwn)
TestAppearsEarly = contract(AppearsEarly)
TestSweeps = contract(Sweeps)


class TestWithoutPlace(StoreContract):
    pass
"""


def test_contract_finds_the_fault_of_each_store(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "-rfE"]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    failed = [line.split(" - ")[0] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    for store, test in {
        "TestReplaces": "test_object_of_another_client_is_not_replaced",
        "TestListsItsOwn": "test_object_of_another_client_is_listed_and_read",
        "TestAppearsEarly": "test_object_appears_only_when_its_creation_ends",
        "TestSweeps": "test_object_is_never_removed_as_abandoned",
        "TestWithoutPlace": "test_store_names_its_location",
    }.items():
        assert any(line.endswith(f"{store}::{test}") for line in failed), done.stdout
    assert not any("TestSound" in line for line in failed)
    assert "where True = create(" in done.stdout, "a failed check shows the values that it compared"
    assert "define the fixture `place`" in done.stdout


def test_importing_the_package_and_its_store_in_memory_imports_no_pytest() -> None:
    program = "import sys, b10_transfer.testing; b10_transfer.testing.MemoryStore(); print('pytest' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
