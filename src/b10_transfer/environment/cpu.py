"""The CPU's instruction-set features.

Inductor compiles host code with ``-march=native`` and PyTorch's own key holds no CPU feature, so a kernel that was
compiled where there is AVX-512 would be an illegal instruction where there is none.

The same CPU must have one key under every kernel. Kernels differ in what they list: newer ones know more names
(``user_shstk`` since 6.6), and some features come and go with boot options, microcode and errata (``rtm``, ``rdseed``,
``xsaves``, ``pku``). Compilers ask the CPU itself for those and emit none of them unasked: they are no part of the key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_X86_FEATURES = re.compile(
    r"""(?x)
    mmx\w* | 3dnow\w* | pni | sse\w* | ssse3 | avx\w* | amx_\w+ | apx\w* | fma4? | f16c | xop | tbm | bmi[12] | abm
    | lzcnt | popcnt | movbe | adx | aes | vaes | pclmulqdq | vpclmulqdq | gfni | sha_ni | cx16 | lahf_lm | cmpccxadd
    """
)
"""Names in ``/proc/cpuinfo`` of x86 that stand for instructions which a compiler emits by itself, or which torch's
kernels use: what would be an illegal instruction on another CPU."""

_NOT_COMPILED_ON_ARM = frozenset({"afp", "bti", "dgh", "ecv", "gcs", "mte", "mte3", "poe", "rng", "rpres", "wfxt"})
"""Names that Arm kernels since 5.6 have come to list for timers, branch protection and memory tags. The others are
instructions, or every kernel lists them."""


def features(cpuinfo: str = "/proc/cpuinfo") -> str:
    """The first CPU's features, sorted and separated by spaces; empty where the kernel does not tell."""
    try:
        with open(cpuinfo, encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                found = _features_of(name.strip(), value.strip())
                if found is not None:
                    return found
    except OSError:
        return ""
    return ""


def _features_of(name: str, value: str) -> str | None:
    """The features that a line of ``/proc/cpuinfo`` lists; None if it lists none."""
    match name:
        case "flags":  # x86
            return _sorted(flag for flag in value.split() if _X86_FEATURES.fullmatch(flag))
        case "Features":  # Arm
            return _sorted(set(value.split()) - _NOT_COMPILED_ON_ARM)
        case "isa" | "features":  # RISC-V, s390: instructions only
            return _sorted(value.split())
        case "cpu":  # POWER: the model stands for its features
            return value
    return None


def _sorted(flags: Iterable[str]) -> str:
    return " ".join(sorted(set(flags)))
