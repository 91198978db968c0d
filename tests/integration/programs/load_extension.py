"""Load an extension with PyTorch, after a load or before a save of its cache; print the result as JSON.

Arguments: the extension's source, and ``load`` or ``save``.
"""

from __future__ import annotations

import json
import sys

from torch.utils import cpp_extension

from b10_transfer import load, save


def main() -> None:
    """Run the program."""
    source, operation = sys.argv[1:]
    report = load() if operation == "load" else None
    module = cpp_extension.load(name="mod", sources=[source])
    done = report or save()
    print(json.dumps({"answer": module.answer(), "status": done.status.name, "reason": done.reason}))


if __name__ == "__main__":
    main()
