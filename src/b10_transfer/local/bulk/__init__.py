"""Many small files at once: written below a folder, or read into memory.

A load writes thousands of files and a save reads as many. In Python that is four or five calls for each, and each call
releases the interpreter's lock and takes it again. If the package was built with a C compiler, the same loops run in C
(``is_native``). Without one everything works, but more slowly.
"""

from __future__ import annotations

from .portable import FileFound, FilePart, FilePlace

try:
    from ._native import read_files, write_files

    is_native = True
except ImportError:
    from .portable import read_files, write_files

    is_native = False

__all__ = ["FileFound", "FilePart", "FilePlace", "is_native", "read_files", "write_files"]
