"""The CPU's instruction-set features.

Inductor compiles host code with ``-march=native`` and PyTorch's own key holds no CPU feature, so a kernel that was
compiled where there is AVX-512 would be an illegal instruction where there is none.
"""

from __future__ import annotations

import re

_X86_FEATURES = re.compile(
    r"""(?x)
    avx\w* | amx_\w+ | sse\w* | ssse3 | pni | fma4? | f16c | bmi[12] | abm | lzcnt | popcnt | adx | aes | vaes
    | pclmulqdq | vpclmulqdq | gfni | sha_ni | sha512 | sm[34] | movbe | movdiri | movdir64b | rdrand | rdseed
    | fsgsbase | rtm | hle | xop | tbm | lwp | 3dnow\w* | mmx\w* | clwb | clflushopt | clzero | cldemote | prefetchw\w*
    | 3dnowprefetch | xsave\w* | rdpid | wbnoinvd | mwaitx | waitpkg | serialize | enqcmd | uintr | pku | ospke | shstk
    | user_shstk | cx16 | lahf_lm | ptwrite | tsxldtrk | cmpccxadd | raoint | prefetchi | apx_f | usermsr
    """
)
"""Names in ``/proc/cpuinfo`` that stand for instructions a compiler may emit (gcc's ``-m`` options for x86).

The other flags (``hypervisor``, mitigations, timers …) differ between hosts and kernels and change no compiled code.
"""


def features(cpuinfo: str = "/proc/cpuinfo") -> str:
    """The first CPU's features, sorted and separated by spaces; empty where the kernel does not tell."""
    try:
        with open(cpuinfo, encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                match name.strip():
                    case "flags":  # x86
                        return " ".join(sorted({flag for flag in value.split() if _X86_FEATURES.fullmatch(flag)}))
                    case "Features" | "isa" | "features":  # Arm, RISC-V, s390: instructions only
                        return " ".join(sorted(set(value.split())))
                    case "cpu":  # POWER: the model stands for its features
                        return value.strip()
    except OSError:
        return ""
    return ""
