"""The pod that an explanation is about: this one, or another one that ``info --json`` has described."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..adapters import locate_caches
from ..config import Config
from ..config.per_pod import per_pod_variables
from ..environment import Environment, detect
from ..errors import CacheError, ConfigurationError
from ..operations import load_plan
from ..operations.key_facts import facts_of
from ..operations.save_plan import Stored
from . import forecast
from .forecast import Forecast

_DESCRIPTION = "it must be the output of `b10-compile-cache info --json`"


@dataclass(frozen=True)
class Pod:
    """Everything about a pod that an explanation depends on."""

    environment: Environment
    caches: frozenset[str]
    """Names of the caches that its loads restore."""
    forecast: Callable[[Stored | CacheError], Forecast]
    """Forecasts its load from the content of the store."""
    remarks: tuple[str, ...] = ()
    key_facts: Mapping[str, str] = field(default_factory=dict)
    """What :mod:`..operations.key_facts` says of this pod; empty for another one."""
    used_caches: tuple[str, ...] = ()
    refused_caches: tuple[str, ...] = ()
    per_pod_variables: tuple[str, ...] = ()


def this_pod(config: Config) -> Pod:
    """Describe the pod that this process runs in."""
    environment = detect()
    located = locate_caches(config)
    local = load_plan.survey(located.roots, config, located.refused)
    return Pod(
        environment,
        frozenset(root.name for root in located.roots),
        lambda stored: forecast.of_load(environment, local, stored),
        tuple(map(str, environment.remarks)),
        facts_of(located.roots, environment, config.reader),
        tuple(root.name for root in local.used),
        tuple(str(error) for error in local.failed.values()),
        tuple(per_pod_variables(os.environ)),
    )


@dataclass(frozen=True)
class PodDescription:
    """What ``info --json`` printed on another pod."""

    namespace: str
    environment: Environment
    caches: Mapping[str, str]
    """Its caches: name, and the reason why a load leaves it out (empty if it does not)."""
    remarks: tuple[str, ...] = ()
    per_pod_variables: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, source: str) -> PodDescription:
        """Read a description.

        Args:
            text: The output of ``b10-compile-cache info --json``.
            source: Name of the file, for messages.

        Raises:
            ConfigurationError: The text is no such output, or its key does not fit its parts.
        """
        try:
            found = json.loads(text)
            parts = {_text(name): _text(value) for name, value in found["parts"].items()}
            description = cls(
                _text(found["namespace"]),
                Environment(parts),
                {_text(cache["name"]): _text(cache["error"]) for cache in found["caches"]},
                tuple(map(_text, found["remarks"])),
                tuple(map(_text, found["per_pod_variables"])),
            )
            expected, actual = _text(found["environment_id"]), description.environment.id
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ConfigurationError("--as", source, _DESCRIPTION) from error
        if expected != actual:
            rule = f"its parts give the environment {actual}, but it says {expected}. Run `info --json` there again"
            raise ConfigurationError("--as", source, rule)
        return description

    def pod(self) -> Pod:
        """The pod, as a replica whose caches are still empty."""
        caches = frozenset(name for name, error in self.caches.items() if not error)
        return Pod(
            self.environment,
            caches,
            lambda stored: forecast.of_load_to_empty_caches(caches, stored),
            self.remarks,
            {},
            (),
            tuple(f"{name}: {error}" for name, error in self.caches.items() if error),
            self.per_pod_variables,
        )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a string is missing")
    value.encode()  # raises ValueError for half of a surrogate pair
    return value
