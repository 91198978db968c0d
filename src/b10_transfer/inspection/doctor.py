"""Checks everything that a load and a save depend on: settings, store, directories, key."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..adapters import CacheRoot, all_adapters
from ..adapters.not_taken import untaken_caches
from ..concurrency.deadline import Deadline, run_within
from ..config import MB, Config, read_deadline
from ..config import store as store_location
from ..config.per_pod import per_pod_variables
from ..environment import detect
from ..environment.frameworks import torch_build
from ..errors import CacheError, ConfigurationError, count
from ..local.left_out import cause_of
from ..local.room import shortages
from ..pack import PackUnit
from ..status import OperationStatus
from ..stores.opening import why_not_shared
from . import forecast
from .bounded import Observer, open_store
from .checks import Check, Diagnosis, State, ok, problem, warning
from .forecast import Forecast
from .info import LocalCache, LocalState, read_store, survey_pod
from .probing import probe_store
from .settings import check_settings

_FALLBACK_DEADLINE_S = 60.0
_REST_UNCHECKED = "correct this first: the later checks of this group could not run"


def diagnose(
    *,
    namespace: str | None = None,
    store: str | os.PathLike[str] | None = None,
    deadline_s: float | None = None,
    observe: Observer | None = None,
) -> Diagnosis:
    """Check everything.

    It writes a few small objects to the store and deletes them; the folders that it creates stay. If the store uses up
    the deadline, the local checks get the same time again.

    Args:
        namespace: Overrides ``B10_NAMESPACE``.
        store: Overrides ``B10_STORE``.
        deadline_s: Overrides ``B10_DEADLINE_SECONDS``.
        observe: Receives the deadline when the checks begin.

    Returns:
        All checks. Errors that they meet are problems in it.

    Raises:
        ConfigurationError: An argument is not usable.
    """
    try:
        seconds = read_deadline(deadline_s)
    except ConfigurationError:
        if deadline_s is not None:
            raise
        seconds = _FALLBACK_DEADLINE_S  # the check of the settings reports it
    deadline = Deadline("doctor", seconds)
    if observe is not None:
        observe(deadline)
    config, checks = run_within(deadline, lambda: check_settings(os.environ, namespace, store))
    if config is None:
        checks.append(problem("store", "not checked", "correct its settings first"))
    else:
        found: Config = config
        origin = store_location.origin(found.reader, store)
        _collect(checks, "store", deadline, lambda: _check_store(found, origin, deadline))
        # The rest is local, and is checked even if the store hung.
        local = Deadline("doctor", seconds) if deadline.remaining_s <= 0 else deadline
        _collect(checks, "work directory", local, lambda: _check_work_dir(found))
        _collect(checks, "caches", local, lambda: _check_pod(found, local, is_store_usable=deadline.remaining_s > 0))
    local = Deadline("doctor", seconds) if deadline.remaining_s <= 0 else deadline
    _collect(checks, "key", local, _check_key)
    checks += _check_per_pod_variables()
    return Diagnosis(all(check.state is not State.PROBLEM for check in checks), tuple(checks))


def _collect(checks: list[Check], name: str, deadline: Deadline, run_checks: Callable[[], Iterable[Check]]) -> None:
    """Add the checks of one group, up to the first error."""

    def work() -> None:
        for check in run_checks():
            checks.append(check)

    try:
        run_within(deadline, work)
    except CacheError as error:
        checks.append(problem(name, str(error), _REST_UNCHECKED))
    except OSError as error:
        where = error.filename or "a file"
        checks.append(problem(name, f"{where}: {error.strerror}", _REST_UNCHECKED))


def _check_store(config: Config, origin: str, deadline: Deadline) -> Iterator[Check]:
    yield ok("store", f"{config.store} ({origin})")
    if why := why_not_shared(config):
        seen, _, advice = why.partition(". ")
        make = problem if config.require_mount else warning
        yield make("store", seen, advice)
    with open_store(config, deadline) as store, open_store(config, deadline) as same_store:
        yield from probe_store(store, same_store, config.max_pack_bytes, deadline, read_only=config.read_only)


def _check_work_dir(config: Config) -> Iterator[Check]:
    name, path = "work directory", config.work_dir
    place = _nearest_folder(path)
    try:
        with tempfile.TemporaryFile(dir=place, prefix="b10-transfer-"):
            pass
    except OSError as error:
        yield problem(
            name, f"{path} is not writable ({error.strerror})", "saves fail: make it writable, or set LOCAL_WORK_DIR"
        )
        return
    volume = os.statvfs(place)
    free = volume.f_bavail * volume.f_frsize
    seen = f"{path} is writable, {free / MB:.0f} MiB are free"
    if free < config.max_pack_bytes:
        yield warning(
            name,
            f"{seen}, and one save may take {config.max_pack_bytes / MB:.0f} MiB (MAX_CACHE_SIZE_MB)",
            "set LOCAL_WORK_DIR to a folder on a larger file system",
        )
    else:
        yield ok(name, seen)


def _check_pod(config: Config, deadline: Deadline, *, is_store_usable: bool) -> Iterator[Check]:
    local = survey_pod(config, deadline)
    yield from _check_caches(local)
    if is_store_usable:
        stored = read_store(local, deadline)
        yield _check_operation("load", forecast.of_load(local.environment, local.survey, stored))
        yield from _check_room(local, forecast.units_to_restore(local.survey, stored))
        yield _check_operation("save", forecast.of_save(config, local.environment, local.roots, local.found, stored))


def _check_room(local: LocalState, units: list[PackUnit]) -> Iterator[Check]:
    """Whether there is room for what a load would restore."""
    if not units:
        return
    caches = {unit.name.partition("/")[0] for unit in units}
    places = [(root, _nearest_folder(root.path)) for root in local.survey.open if root.name in caches]
    found = shortages(places, units)
    for error in found.values():
        seen, _, advice = str(error).partition("; ")
        yield problem("room for a load", seen, advice or "check the file system")
    if not found:
        needed = sum(unit.size for unit in units) / MB
        free = min(os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize for _root, folder in places) / MB
        yield ok("room for a load", f"a load would write {needed:.1f} MiB, {free:.0f} MiB are free")


def _check_operation(name: str, expected: Forecast) -> Check:
    """Whether an operation would work now."""
    if expected.status is OperationStatus.ERROR:
        return problem(name, f"would fail now: {expected.reason}", f"correct this: until then every {name} fails")
    amount = f" {count(expected.units, 'unit')}" if expected.units else ""
    return ok(name, f"would be {expected.status.name} now: {expected.reason}{amount}")


def _check_caches(local: LocalState) -> Iterator[Check]:
    empty = []
    causes: dict[str, list[str]] = {}
    for name, error in local.survey.failed.items():
        if name not in local.refused:  # the check of the settings reports those
            causes.setdefault(cause_of(error), []).append(name)
    shared = {cause: names for cause, names in causes.items() if len(names) > 1}
    for cause, names in shared.items():
        yield problem("caches", f"{cause}; {len(names)} caches are left out: {', '.join(names)}", "correct this once")
    reported = {name for names in shared.values() for name in names}
    for root, cache in zip(local.roots, local.caches, strict=True):
        if root.name in reported:
            continue
        check = _check_cache(root, cache)
        if check is None:
            empty.append(root.name)
        else:
            yield check
    if empty:
        yield ok("caches", f"empty and writable: {', '.join(empty)}")
    left_out = [adapter.cache for adapter in all_adapters() if adapter.cache not in local.config.caches]
    if left_out:
        yield ok("caches", f"B10_CACHES leaves out {', '.join(left_out)}")
    for path, cache_left_alone in untaken_caches(local.config.reader):
        yield ok("caches", f"{path} is neither saved nor restored ({cache_left_alone.title}): {cache_left_alone.why}")


def _check_cache(root: CacheRoot, cache: LocalCache) -> Check | None:
    """Check one cache; None if it is sound and empty."""
    name, place = f"cache {root.name}", _nearest_folder(root.path)
    variables = " or ".join(variable.name for variable in root.adapter.variables) or "TMPDIR"
    owner = os.stat(place).st_uid
    if place == root.path and owner != os.geteuid() and os.geteuid() != 0:
        return warning(
            name,
            f"{root.path} belongs to user {owner}, this command runs as user {os.geteuid()}",
            "run the server and this command as one user: other users cannot read all files of compilers",
        )
    if not os.access(place, os.W_OK | os.X_OK):
        return problem(
            name,
            f"{place} is not writable for user {os.geteuid()}, so nothing can be restored to {root.path}",
            f"make it writable, or point {variables} elsewhere",
        )
    if cache.error:
        return problem(name, cache.error, f"make it readable, or point {variables} elsewhere")
    if not cache.units:
        return None
    return ok(name, f"{count(cache.units, 'unit')}, {cache.bytes / 1e6:.1f} MB in {root.path}")


def _check_key() -> Iterator[Check]:
    try:
        torch, environment = torch_build(), detect()
    except ConfigurationError as error:
        yield problem("key", str(error), f"correct {error.variable}, or unset it")
        return
    if not torch.version:
        yield problem(
            "key",
            f"{environment.recorded['interpreter']} has no torch, so torch's version is not in the key",
            "set B10_PYTHON to the server's Python, or run b10-compile-cache from the server's environment",
        )
    remarks = [remark for remark in environment.remarks if remark.level != logging.INFO and torch.version]
    for remark in remarks:
        make = problem if remark.level >= logging.ERROR else warning
        yield make("key", remark.seen, remark.advice)
    if not remarks and (torch.cuda or torch.hip or torch.xpu) and environment.parts["accelerator"] == "cpu":
        built_for = f"CUDA {torch.cuda}" if torch.cuda else f"ROCm {torch.hip}" if torch.hip else f"XPU {torch.xpu}"
        yield warning(
            "key",
            f"torch is built for {built_for}, but no device was found: the key says cpu",
            "if this pod has a device, check its driver and which devices the container may see",
        )
    if not environment.parts["cpu features"]:
        yield warning(
            "key",
            "the kernel does not list the CPU's features, so they are not in the key",
            "use one store only for nodes of one CPU type, or a B10_NAMESPACE for each type",
        )
    device = environment.parts["device"] or environment.parts["accelerator"]
    yield ok("key", f"environment {environment.id}: torch {environment.parts['torch'] or 'none'}, {device}")


def _check_per_pod_variables() -> Iterator[Check]:
    if found := per_pod_variables(os.environ):
        yield warning(
            "per-pod variables",
            f"vLLM hashes {', '.join(found)} into the name of its cache",
            "unset them, or give them the same value in all pods: if they differ, vLLM uses no restored cache",
        )


def _nearest_folder(path: Path) -> Path:
    """A folder, or its nearest parent that exists."""
    return next((folder for folder in (path, *path.parents) if os.path.isdir(folder)), Path("/"))
