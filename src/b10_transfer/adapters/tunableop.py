"""The results of PyTorch's TunableOp, which tunes matrix products.

``PYTORCH_TUNABLEOP_FILENAME`` (torch 2.13, ``torch/cuda/tunable.py``) names one file for each device: the device's
number replaces ``%d``, or goes before the extension. Without the variable the files are in the server's working
directory. That is not known here, so they are not saved. A file without TunableOp in its name is not saved either,
because its folder may have tables of other programs.

A line is ``operator,parameters,solution,time``. Lines ``Validator,name,value`` come first and say for which versions
and device the results hold: TunableOp ignores the whole file if one differs. It writes the file when its process ends,
or line by line.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection
from glob import escape
from pathlib import Path

from ..config.reader import EnvReader, Variable
from ..notices import notices
from .accumulation import Results, Table
from .base import Adapter, Unit
from .layout import Layout, stem_shape

logger = logging.getLogger(__name__)

_NAME = "PYTORCH_TUNABLEOP_FILENAME"
_RESULTS = r"(?!.*untuned)(?:[A-Za-z0-9+-][\w.+-]*)?tunable_?op[\w.+-]*\.csv"
_VALIDATOR = "Validator"
_FIELDS = 3
"""Operator, parameters and solution; the time may be missing."""
_LINE_BYTES = 400
"""Memory that a line takes in Python beyond its characters: as a text, and as three more in a table."""


class TunedTable(Results):
    """Results of TunableOp: a table of validators, and one for each operator."""

    def __init__(self) -> None:
        super().__init__(_VALIDATOR)

    def memory_of(self, data: bytes) -> int:
        return 2 * len(data) + data.count(b"\n") * _LINE_BYTES

    def _table(self, data: bytes) -> Table:
        text = data.decode()
        if not text.startswith(f"{_VALIDATOR},") or not text.endswith("\n"):
            raise ValueError("it does not begin with a validator, or ends in the middle of a line")
        table: Table = {}
        for line in text.splitlines():
            fields = line.split(",", 2)
            if len(fields) < _FIELDS or not all(fields) or not line.isprintable():
                raise ValueError(f"it holds the line {line!a:.80}")
            # TunableOp goes by the first of several lines about the same.
            table.setdefault(fields[0], {}).setdefault(fields[1], fields[2])
        return table

    def _text(self, table: Table) -> bytes:
        validators = {_VALIDATOR: table[_VALIDATOR]}
        lines = [",".join((name, key, value)) for name, of in (validators | table).items() for key, value in of.items()]
        return "".join(f"{line}\n" for line in lines).encode()


_TUNED = TunedTable()


class TunableOpAdapter(Adapter):
    """The folder of the file that ``PYTORCH_TUNABLEOP_FILENAME`` names."""

    name = "tunableop"
    title = "PyTorch's TunableOp: the fastest implementation of each matrix product"
    units = "a device's file"
    variables = (
        Variable(
            _NAME,
            "`tunableop_results%d.csv` in the working directory, which is not saved",
            "an absolute path of a file with `tunableop` in its name; another is left alone",
            "Where TunableOp keeps its results.",
        ),
    )
    layout = Layout(stem_shape(_RESULTS), left_here=(r"[\w.+-]*tunableop_untuned[\w.+-]*\.csv",))

    def locate(self, env: EnvReader) -> Path | None:
        text = env.text(_NAME)
        if text is None:
            return None
        folder, name = os.path.split(text)
        if os.path.isabs(folder) and "%" not in folder and re.fullmatch(_RESULTS, name.replace("%d", "0", 1), re.ASCII):
            return Path(folder)
        notices.log(
            logger,
            logging.WARNING,
            f"{_NAME}={text}: TunableOp's results are not saved there. Give it an absolute path of a file with "
            "'tunableop' in its name, for example ~/.cache/tunableop/tunableop_results%d.csv with your home's path",
        )
        return None

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        """Whether the file begins and ends as TunableOp writes it: not in the middle of a line."""
        try:
            with open(root / unit.path, "rb") as file:
                is_tuned = file.read(len(_VALIDATOR) + 1) == f"{_VALIDATOR},".encode()
                file.seek(-1, os.SEEK_END)
                return is_tuned and file.read(1) == b"\n"
        except OSError:
            return False

    def depends_on_host(self, unit: Unit, files: Collection[str]) -> bool:
        return False

    def results_of(self, path: str) -> Results | None:
        return _TUNED


def results_name(env: EnvReader) -> str:
    """The path of the results as a pattern: any number may stand for the device's."""
    text = env.text(_NAME) or "tunableop_results%d.csv"
    start, end = text.split("%d", 1) if "%d" in text else os.path.splitext(text)
    return f"{escape(start)}*{escape(end)}"
