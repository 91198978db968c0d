"""What tracing takes for constant in a process: torch's settings and state, and what a trace may be exchanged for."""

from __future__ import annotations

import operator
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo.config as dynamo_config
import torch._functorch.config as functorch_config
import torch._inductor.config as inductor_config

from .code import digest_of, digest_of_all

STRICT: dict[str, Any] = {"skip_nnmodule_hook_guards": False, "caching_precompile": False}
"""Dynamo's default is not to guard on whether a module has hooks. Between two processes that may well differ."""
_OF_A_CALL = ("assume_static_by_default", "automatic_dynamic_shapes")
"""Settings of Dynamo that ``torch.compile(dynamic=...)`` sets during a call."""
_NOT_COMPARED = {"base_dir", "debug_dir_root", *STRICT, *_OF_A_CALL}
"""Settings of Dynamo that are paths, which change nothing that is compiled, or are compared in another way."""
_CONFIGS: tuple[Any, ...] = (inductor_config, functorch_config, dynamo_config)

_STATE = (
    *("is_inference_mode_enabled", "get_default_dtype", "get_num_threads", "get_float32_matmul_precision"),
    *("are_deterministic_algorithms_enabled", "is_deterministic_algorithms_warn_only_enabled"),
    *("_C._get_deterministic_fill_uninitialized_memory", "_C._get_mkldnn_enabled", "_C._get_mkldnn_deterministic"),
    *("_C._get_cudnn_enabled", "_C._get_cudnn_benchmark", "_C._get_cudnn_deterministic", "_C._get_cudnn_allow_tf32"),
    *("_C._get_cublas_allow_tf32", "_C._get_cublas_allow_fp16_accumulation", "_C._get_onednn_allow_tf32"),
    *("_C._get_cublas_allow_fp16_reduced_precision_reduction", "_C._get_cublas_allow_bf16_reduced_precision_reduction"),
    *("_C._get_cpu_allow_fp16_reduced_precision_reduction", "_C._get_nnpack_enabled", "_C._get_qengine"),
    *("_C._get_flash_sdp_enabled", "_C._get_mem_efficient_sdp_enabled", "_C._get_math_sdp_enabled"),
    *("_C._get_cudnn_sdp_enabled", "_C._get_overrideable_sdp_enabled", "_C._get_sdp_priority_order"),
    *("_C._get_math_sdp_allow_fp16_bf16_reduction", "_C._get_fa3_sdp_enabled"),
    *("_C._get_linalg_preferred_backend", "_C._get_blas_preferred_backend", "_C._get_privateuse1_backend_name"),
    *("_C._functorch.get_dynamic_layer_stack_depth", "_C._get_autograd_fallback_mode", "_C._get_cpu_capability"),
    *("backends.mha.get_fastpath_enabled", "autograd._is_checkpoint_valid", "cuda.is_available", "xpu.is_available"),
    *("_C._get_rocm_fa_preferred_backend", "_C._get_sm_carveout_experimental", "_C._get_miopen_immediate"),
    *("accelerator.is_available", "accelerator.current_accelerator", "cuda.is_initialized", "xpu.is_initialized"),
    *("is_autocast_cache_enabled", "distributed.is_available"),
    *("__future__.get_overwrite_module_params_on_conversion", "__future__.get_swap_module_params_on_conversion"),
)
"""Functions of torch without arguments: what tracing or compiling may read and no guard of Dynamo compares."""


_AUTOCAST = ("cpu", "cuda", "xpu")
"""Devices. Dynamo's guard compares the dtype of autocast only where autocast is on."""


def _getters() -> dict[str, Callable[[], Any]]:
    found: dict[str, Callable[[], Any]] = {}
    for name in _STATE:
        try:
            getter = operator.attrgetter(name)(torch)
            getter()
        except Exception:  # noqa: BLE001, S112 - another torch, or one without this backend
            continue
        found[name] = getter
    return found


_GETTERS = _getters()


def raw_state() -> tuple[object, ...]:
    """Torch's state that Dynamo reads without a guard, in an order of its own: rank, world size, devices, switches."""
    distributed: Any = torch.distributed
    group: tuple[object, ...] = (None, None, None)
    if distributed.is_available() and distributed.is_initialized():
        group = (distributed.get_rank(), distributed.get_world_size(), distributed.get_backend())
    cuda: Any = torch.cuda
    devices = (cuda.device_count(), cuda.current_device()) if cuda.is_initialized() else (None, None)
    shapes = [getattr(dynamo_config, name) for name in _OF_A_CALL]
    switches = [getter() for getter in _GETTERS.values()]
    autocast = map(torch.get_autocast_dtype, _AUTOCAST)
    return (*group, *devices, torch.utils._device.CURRENT_DEVICE, *shapes, *autocast, *switches)


def process_state() -> dict[str, str]:
    """The same by name, each as text."""
    group = ("rank", "world size", "process group", "number of devices", "device", "default device")
    autocast = (f"dtype of autocast on {device}" for device in _AUTOCAST)
    names = (*group, *_OF_A_CALL, *autocast, *_GETTERS)
    return dict(zip(names, map(repr, raw_state()), strict=True))


_digests: dict[tuple[bytes, ...], str] = {}
"""By torch's own hashes of its settings, which are fast and leave out what changes nothing that is compiled."""


def configuration() -> str:
    """A digest of Dynamo's, AOTAutograd's and Inductor's settings, without those that are paths."""
    hashes = tuple(config.get_hash() for config in _CONFIGS)
    if hashes not in _digests:
        parts = []
        for config in _CONFIGS:
            settings = config.save_config_portable().items()
            parts.append(sorted((name, value) for name, value in settings if name not in _NOT_COMPARED))
        _digests[hashes] = digest_of_all(parts)
    return _digests[hashes]


def custom_passes() -> list[str]:
    """Settings that hold functions of a program: they change what is compiled, and cannot be compared."""
    return [
        name
        for config in _CONFIGS
        for name in getattr(config, "_save_config_ignore", ())
        if callable(_get(config, name))
    ]


def _get(config: Any, name: str) -> Any:
    try:
        return operator.attrgetter(name)(config)
    except AttributeError:  # torch lists settings that it no longer has
        return None


def key_of(function: Callable[..., Any], owner: object, how: object) -> str:
    """Names what may be exchanged for one another: one function, compiled in one way under one configuration."""
    code: types.CodeType = function.__code__
    parts: list[object] = [
        3,  # the key's own version
        (function.__module__, function.__qualname__, digest_of(code), home_of(function.__globals__, {})),
        _shape_of(owner),
        how,
        (sys.version, sys.flags.optimize, torch.__version__, torch.version.cuda, torch.version.hip),
        configuration(),
        [getattr(dynamo_config, name) for name in _OF_A_CALL],
    ]
    return digest_of_all(parts)


def home_of(scope: dict[str, Any], main: dict[str, Any]) -> str | None:
    """The module that globals belong to; empty if they are ``main``, None if they belong to no module."""
    if scope is main:
        return ""
    named = sys.modules.get(str(scope.get("__name__")))
    for module in (named, *list(sys.modules.values())):
        if getattr(module, "__dict__", None) is scope:
            name = module.__name__  # type: ignore[union-attr]
            return name if sys.modules.get(name) is module else None
    return None


def _shape_of(owner: object) -> object:
    """The types a module is built of: guards tell models apart as well, but each would be tried for each."""
    if isinstance(owner, torch.nn.Module):
        return [(name, type(part).__module__, type(part).__qualname__) for name, part in owner.named_modules()]
    return (type(owner).__module__, type(owner).__qualname__)
