"""The man page is valid, and has every subcommand and option."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from b10_transfer.cli.main import COMMANDS

PAGE = Path(__file__).parents[3] / "src" / "b10_transfer" / "cli" / "b10-compile-cache.1"


@pytest.mark.skipif(
    shutil.which("groff") is None and not os.environ.get("B10_TEST_EVERYTHING"), reason="needs groff, which shows it"
)
@pytest.mark.parametrize("width", [80, 120])
def test_groff_shows_it_without_a_warning(width: int) -> None:
    arguments = ["groff", "-man", "-Tascii", "-ww", f"-rLL={width}n", str(PAGE)]
    done = subprocess.run(arguments, capture_output=True, text=True, env=os.environ | {"GROFF_NO_SGR": "1"}, check=True)
    assert done.stderr == ""
    shown = re.sub(".\b", "", done.stdout)  # bold is written twice
    for text in (*COMMANDS, "SYNOPSIS", "unused-for", "--require-hit"):
        assert text in shown
