"""The environment key: everything that must be equal for artifacts to be reusable. Found without importing torch."""

from __future__ import annotations

from .detect import detect, identify
from .key import Environment, Remark

__all__ = ["Environment", "Remark", "detect", "identify"]
