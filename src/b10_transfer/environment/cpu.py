"""The CPU's instruction-set features.

Inductor compiles host code with ``-march=native``, and PyTorch's own key has no CPU feature. A kernel that was compiled
for AVX-512 would stop with an illegal instruction on a CPU without it.

The same CPU must have the same key under every Linux kernel. Kernels list different names: newer ones list more
(``user_shstk`` since 6.6), and some names depend on boot options, microcode and errata (``rtm``, ``rdseed``,
``xsaves``, ``pku``). Compilers never use those by default, so they are not part of the key.
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
"""Names in ``/proc/cpuinfo`` of x86 for instructions that compilers use by default or that torch's kernels use. On
another CPU they would be illegal instructions."""

_NOT_COMPILED_ON_ARM = frozenset({"afp", "bti", "dgh", "ecv", "gcs", "mte", "mte3", "poe", "rng", "rpres", "wfxt"})
"""Names that Linux lists on Arm since 5.6, for timers, branch protection and memory tags. All other names are those of
instructions, or every kernel lists them."""


def features(cpuinfo: str = "/proc/cpuinfo") -> str:
    """The first CPU's features, sorted and separated by spaces; empty if the kernel lists none."""
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
        case "cpu":  # POWER: the model implies the features
            return value
    return None


def _sorted(flags: Iterable[str]) -> str:
    return " ".join(sorted(set(flags)))
