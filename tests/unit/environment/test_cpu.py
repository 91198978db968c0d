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
def test_kernel_that_tells_nothing_is_no_error(tmp_path: Path, text: str) -> None:
    assert found(tmp_path, text) == ""


def test_missing_file_is_no_error(tmp_path: Path) -> None:
    assert cpu.features(str(tmp_path / "cpuinfo")) == ""


def test_bytes_that_are_no_text_are_no_error(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_bytes(b"model name : \xff\xfe\nflags : avx\n")
    assert cpu.features(str(tmp_path / "cpuinfo")) == "avx"


def test_this_machine_has_features() -> None:
    assert cpu.features()
