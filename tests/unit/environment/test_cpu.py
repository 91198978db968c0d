"""The CPU's features, from what different kernels say of different CPUs."""

from __future__ import annotations

from pathlib import Path

import pytest

from b10_transfer.environment import cpu

X86 = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model name\t: Intel(R) Xeon(R) Platinum 8480+
cpu MHz\t\t: 2000.000
cpu cores\t: 56
flags\t\t: fpu vme tsc hypervisor avx512f avx2 sse4_2 amx_tile fma bmi2 syscall ht constant_tsc md_clear
bugs\t\t: spectre_v1 spectre_v2
bogomips\t: 4000.00

processor\t: 1
flags\t\t: fpu avx
"""

ARM = """\
processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics sve bf16
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd4f
"""

POWER = """\
processor\t: 0
cpu\t\t: POWER9, altivec supported
clock\t\t: 3800.000000MHz
revision\t: 2.2 (pvr 004e 1202)
"""

RISCV = """\
processor\t: 0
hart\t\t: 2
isa\t\t: rv64imafdc_zicntr_zba
mmu\t\t: sv39
"""

S390 = """\
vendor_id       : IBM/S390
# processors    : 2
bogomips per cpu: 3241.00
features\t: esan3 zarch stfle msa vx sie
"""


def found(tmp_path: Path, text: str) -> str:
    (tmp_path / "cpuinfo").write_text(text)
    return cpu.features(str(tmp_path / "cpuinfo"))


def test_instructions_of_the_first_x86_cpu_are_named(tmp_path: Path) -> None:
    assert found(tmp_path, X86) == "amx_tile avx2 avx512f bmi2 fma sse4_2"


@pytest.mark.parametrize("flag", ["hypervisor", "md_clear", "constant_tsc", "ibpb", "arch_capabilities", "nonstop_tsc"])
def test_flags_that_change_no_compiled_code_are_left_out(tmp_path: Path, flag: str) -> None:
    assert found(tmp_path, X86.replace("hypervisor", f"{flag}")) == found(tmp_path, X86.replace("hypervisor ", ""))


@pytest.mark.parametrize(
    "flag",
    [
        "avx",
        "avx2",
        "avx512_bf16",
        "avx512vl",
        "avx_vnni",
        "amx_bf16",
        "fma",
        "f16c",
        "sse4a",
        "vaes",
        "popcnt",
        "bmi1",
    ],
)
def test_flag_of_an_instruction_set_changes_the_features(tmp_path: Path, flag: str) -> None:
    without = "flags : fpu\n"
    assert found(tmp_path, f"flags : fpu {flag}\n") == flag
    assert found(tmp_path, without) == ""


def test_order_of_flags_does_not_matter(tmp_path: Path) -> None:
    assert found(tmp_path, "flags : avx2 avx sse2 avx\n") == found(tmp_path, "flags : sse2 avx avx2\n")


@pytest.mark.parametrize(
    ("cpuinfo", "features"),
    [
        (ARM, "aes asimd atomics bf16 crc32 evtstrm fp pmull sha1 sha2 sve"),
        (POWER, "POWER9, altivec supported"),
        (RISCV, "rv64imafdc_zicntr_zba"),
        (S390, "esan3 msa sie stfle vx zarch"),
    ],
    ids=["Arm", "POWER", "RISC-V", "s390"],
)
def test_other_machines_name_their_features_too(tmp_path: Path, cpuinfo: str, features: str) -> None:
    assert found(tmp_path, cpuinfo) == features


@pytest.mark.parametrize("text", ["", "processor : 0\n", "\n\n", "flags\n"])
def test_kernel_that_lists_no_features_is_no_error(tmp_path: Path, text: str) -> None:
    assert found(tmp_path, text) == ""


def test_missing_file_is_no_error(tmp_path: Path) -> None:
    assert cpu.features(str(tmp_path / "cpuinfo")) == ""


def test_bytes_that_are_no_text_are_no_error(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_bytes(b"model name : \xff\xfe\nflags : avx\n")
    assert cpu.features(str(tmp_path / "cpuinfo")) == "avx"


def test_this_machine_has_features() -> None:
    assert cpu.features()


# The same CPU under several kernels: flags as those kernels list them.

GENOA = """
fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ht syscall nx mmxext
fxsr_opt pdpe1gb rdtscp lm constant_tsc rep_good nopl nonstop_tsc cpuid extd_apicid aperfmperf pni pclmulqdq monitor
ssse3 fma cx16 pcid sse4_1 sse4_2 movbe popcnt aes xsave avx f16c rdrand lahf_lm cmp_legacy svm cr8_legacy abm sse4a
misalignsse 3dnowprefetch topoext fsgsbase bmi1 avx2 smep bmi2 erms invpcid avx512f avx512dq rdseed adx smap avx512ifma
clflushopt clwb avx512cd sha_ni avx512bw avx512vl xsaveopt xsavec xgetbv1 xsaves avx512_bf16 clzero xsaveerptr wbnoinvd
avx512vbmi umip pku ospke avx512_vbmi2 gfni vaes vpclmulqdq avx512_vnni avx512_bitalg avx512_vpopcntdq la57 rdpid fsrm
"""
SAPPHIRE_RAPIDS = """
fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ss ht syscall nx
pdpe1gb rdtscp lm constant_tsc rep_good nopl xtopology nonstop_tsc cpuid tsc_known_freq pni pclmulqdq monitor ssse3 fma
cx16 pcid sse4_1 sse4_2 x2apic movbe popcnt aes xsave avx f16c rdrand hypervisor lahf_lm abm 3dnowprefetch fsgsbase bmi1
hle avx2 smep bmi2 erms invpcid rtm avx512f avx512dq rdseed adx smap avx512ifma clflushopt clwb avx512cd sha_ni avx512bw
avx512vl xsaveopt xsavec xgetbv1 xsaves avx_vnni avx512_bf16 wbnoinvd ida arat avx512vbmi umip pku ospke waitpkg
avx512_vbmi2 gfni vaes vpclmulqdq avx512_vnni avx512_bitalg tme avx512_vpopcntdq la57 rdpid cldemote movdiri movdir64b
fsrm md_clear amx_bf16 avx512_fp16 amx_tile amx_int8 flush_l1d arch_capabilities
"""


def listed(tmp_path: Path, flags: str, gains: str = "", loses: str = "") -> str:
    """The features that a kernel's list of flags gives, with some flags more and some fewer."""
    kept = [flag for flag in flags.split() if flag not in loses.split()]
    return found(tmp_path, f"flags : {' '.join(kept)} {gains}\n")


@pytest.mark.parametrize("flags", [GENOA, SAPPHIRE_RAPIDS], ids=["Genoa", "Sapphire Rapids"])
@pytest.mark.parametrize(
    ("gains", "loses"),
    [
        ("user_shstk", ""),
        ("shstk ibt", ""),
        ("user_shstk ibt flush_l1d vnmi debug_swap perfmon_v2 automatic_ibrs", ""),
        ("enqcmd uintr serialize tsxldtrk prefetchi bus_lock_detect", ""),
        ("", "hle rtm"),
        ("", "rdseed rdrand"),
        ("", "xsaves xsavec xsaveopt"),
        ("", "pku ospke"),
        ("", "fsgsbase la57"),
        ("", "movdiri movdir64b cldemote waitpkg wbnoinvd"),
    ],
)
def test_same_cpu_has_the_same_features_under_every_kernel(tmp_path: Path, flags: str, gains: str, loses: str) -> None:
    assert listed(tmp_path, flags, gains, loses) == listed(tmp_path, flags)


@pytest.mark.parametrize(
    "flag", ["avx512_bf16", "avx512f", "amx_tile", "avx_vnni", "avx512_fp16", "gfni", "movbe", "abm"]
)
def test_cpus_with_different_instructions_have_different_features(tmp_path: Path, flag: str) -> None:
    assert listed(tmp_path, SAPPHIRE_RAPIDS, loses=flag) != listed(tmp_path, SAPPHIRE_RAPIDS)


def test_arm_cpu_has_the_same_features_under_a_newer_kernel(tmp_path: Path) -> None:
    newer = ARM.replace("Features\t:", "Features\t: ecv afp rpres wfxt bti mte mte3 dgh rng")
    assert found(tmp_path, newer) == found(tmp_path, ARM)
