"""Packs that cannot be used: told to the user, and marked for the next save."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..config import Config
from ..local.placing import Restored
from ..repository.ignored import errors_in, newer_in
from ..repository.repository import Repository
from ..repository.union import Rejected, Union

logger = logging.getLogger(__name__)


def damaged_since(union: Union, restored: Restored) -> list[Rejected]:
    """The packs of a union in which a restore has found damage."""
    known = {pack.id for pack in union.rejected}
    return [pack for pack in restored.union.rejected if pack.id not in known]


def report_damage(repository: Repository, union: Union, damaged: Sequence[Rejected], config: Config) -> None:
    """Log what is damaged, and mark packs of this pod's environment for the next save."""
    log_ignored(damaged)
    if not config.read_only:
        environment_id = repository.environment.id
        own = {pack.id for pack in union.packs if pack.index.environment_id == environment_id}
        repository.suspect(pack for pack in damaged if pack.id in own)


def log_ignored(rejected: Sequence[Rejected], unread: int = 0) -> None:
    """Log which packs a load ignores: a line for each, or one line if they are many."""
    for line in newer_in(rejected):
        logger.info("%s; left alone", line)
    for line in errors_in(rejected, unread):
        logger.error("%s. A load ignores it; the next save that has its units publishes them again", line)
