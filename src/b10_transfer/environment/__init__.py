"""What must be equal for artifacts to be reusable, found without importing torch."""

from __future__ import annotations

from .detect import detect
from .key import Environment

__all__ = ["Environment", "detect"]
