"""Every input that fuzzing has kept goes through its target again, and some thousand new ones made from the seeds.

``make fuzz`` looks for more with atheris; CONTRIBUTING.md says how an input gets into ``corpus/``.
"""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from b10_transfer.local.bulk import FilePart
from b10_transfer.local.staging import StagedTree
from b10_transfer.pack import trailer
from b10_transfer.repository.repository import ReadRepository
from b10_transfer.testing.memory import MemoryStore

from . import hostile_stores, mutator, seeds, targets
from .anatomy import Anatomy

CORPUS = Path(__file__).parent / "corpus"
NEW_INPUTS = 1500


@pytest.mark.parametrize("name", targets.TARGETS)
def test_kept_inputs_do_no_harm(name: str) -> None:
    kept = sorted((CORPUS / name).iterdir())
    assert kept
    seeds.packs()  # signs what may count as signed
    for path in kept:
        targets.TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("name", ["signature", "settings"])
def test_seeds_do_no_harm(name: str) -> None:
    for data in {"signature": seeds.signatures, "settings": seeds.settings}[name]():
        targets.TARGETS[name](data)


@pytest.mark.parametrize("number", range(len(hostile_stores.inputs())))
def test_no_command_ends_in_a_traceback_for_a_hostile_store(number: int) -> None:
    hostile_stores.commands(hostile_stores.inputs()[number])


def test_commands_withstand_random_stores() -> None:
    rng = random.Random(20261129)
    contents = [b"", b"{}", b"\xff" * 50, hostile_stores.hostile_pack({"a": "b"}), *seeds.packs()[:3]]
    for _ in range(12):
        data = b"".join(
            hostile_stores.entry(rng.randrange(256), rng.randrange(256), rng.randrange(256), rng.choice(contents))
            for _ in range(rng.randrange(1, 12))
        )
        hostile_stores.commands(data)


def test_seeds_are_sound_packs_that_are_restored() -> None:
    """Without this, what is made of them would be refused for nothing."""
    for data in seeds.packs():
        assert accepted(data)
        targets.pack(data)


def test_new_inputs_do_no_harm() -> None:
    rng = random.Random(20251123)
    pool = seeds.packs()
    taken = 0
    for _ in range(NEW_INPUTS):
        data = mutator.mutate(rng.choice(pool), rng)
        targets.pack(data)
        taken += accepted(data)
        if rng.random() < 0.05:
            pool.append(mutator.crossed(data, rng.choice(pool), rng))
    # Not all are refused at the first digest, nor do most get by.
    assert NEW_INPUTS / 50 < taken < NEW_INPUTS / 2


def accepted(data: bytes) -> bool:
    store = MemoryStore()
    store.create(targets.PACK, io.BytesIO(data))
    repository = ReadRepository(store, targets.NAMESPACE, targets.ENVIRONMENT, targets.LIMITS, targets.deadline())
    return bool(repository.union().packs)


# A fuzzer that finds nothing may be blind: each of these plants what it must see.


def test_file_too_many_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    write = StagedTree.write

    def write_two(tree: StagedTree, parts: Sequence[FilePart]) -> None:
        write(tree, [(f"{part[0]}.more", *part[1:]) for part in parts])
        write(tree, parts)

    monkeypatch.setattr(StagedTree, "write", write_two)
    monkeypatch.setattr(targets, "_restored", set())
    with pytest.raises(KeyError, match="more"):
        targets.pack(seeds.packs()[3])


def test_wrong_mode_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    write = StagedTree.write

    def write_for_all(tree: StagedTree, parts: Sequence[FilePart]) -> None:
        write(tree, [(part[0], part[1] | 0o022, *part[2:]) for part in parts])

    monkeypatch.setattr(StagedTree, "write", write_for_all)
    monkeypatch.setattr(targets, "_restored", set())
    with pytest.raises(AssertionError, match="KERNEL"):
        targets.pack(seeds.packs()[3])


def test_forged_signature_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    other = Anatomy.of(seeds.packs()[0])
    signed = Anatomy.of(seeds.packs()[4])
    assert other is not None
    assert signed is not None
    other.extension = signed.extension
    forged = other.pack()
    targets.pack(forged)  # is refused
    monkeypatch.setattr("b10_transfer.repository.signing._message", lambda _id, _index: b"the same for all")
    with pytest.raises(AssertionError, match="forged"):
        sign_and_check(forged)


def sign_and_check(pack: bytes) -> None:
    out = io.BytesIO(pack)
    targets.KEY.sign(out, targets.ID)
    targets.signed_indexes.discard(digest_of_index(pack))
    targets.pack(out.getvalue())


def digest_of_index(pack: bytes) -> str:
    footer = trailer.decode_footer("", pack[-trailer.FOOTER_BYTES :], len(pack))
    start = len(pack) - footer.trailer_bytes + 8
    return hashlib.sha256(pack[start : start + footer.index_packed_bytes]).hexdigest()


def test_unforeseen_error_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OverflowError("unforeseen")

    monkeypatch.setattr("b10_transfer.pack.index._check_units", fail)
    with pytest.raises(OverflowError, match="unforeseen"):
        targets.pack(seeds.packs()[0])
