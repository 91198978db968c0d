"""Print how the folders of the package import each other.

    python tools/import_graph.py [SOURCE]

SOURCE is the folder of the package (default: src/b10_transfer of this repository). A *place* is a folder at the top of
the package, or a module there. An *arrow* is one place that imports another. The *floor* of a place is the length of
the longest chain of imports below it. The output ends with the number of arrows, places and floors, and names every
cycle.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "b10_transfer"


def main() -> int:
    """Print the graph of the package named on the command line.

    Returns:
        0, or 1 if there is a cycle.
    """
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE
    graph = place_graph(source)
    floors, cycles = find_floors(graph)
    for place in sorted(graph, key=lambda name: (-floors[name], name)):
        print(f"{floors[place]:3} {place:24} -> {', '.join(sorted(graph[place])) or '-'}")
    arrows = sum(len(targets) for targets in graph.values())
    print(f"{arrows} arrows between {len(graph)} places on {len(set(floors.values()))} floors")
    for cycle in cycles:
        print(f"cycle: {' -> '.join(cycle)}")
    return 1 if cycles else 0


def place_graph(source: Path) -> dict[str, set[str]]:
    """Find which places import which.

    Args:
        source: The folder of the package.

    Returns:
        For each place, the other places that its modules import.
    """
    modules = {_module_name(source, path): path for path in source.rglob("*.py")}
    graph: dict[str, set[str]] = {_place(source, path): set() for path in modules.values()}
    for name, path in modules.items():
        here = _place(source, path)
        for target in _imports(name, path, source.name):
            found = modules.get(target) or modules.get(target.rpartition(".")[0])
            if found is not None and _place(source, found) != here:
                graph[here].add(_place(source, found))
    return graph


def find_floors(graph: dict[str, set[str]]) -> tuple[dict[str, int], list[list[str]]]:
    """Find the floor of each place.

    Args:
        graph: For each place, the places it imports.

    Returns:
        The floor of each place (0: it imports nothing), and the cycles. An import that closes a cycle adds no floor.
    """
    floors: dict[str, int] = {}
    cycles: list[list[str]] = []

    def visit(place: str, path: list[str]) -> int:
        if place in path:
            cycles.append([*path[path.index(place) :], place])
            return -1
        if place not in floors:
            floors[place] = 1 + max((visit(below, [*path, place]) for below in sorted(graph[place])), default=-1)
        return floors[place]

    for place in sorted(graph):
        visit(place, [])
    return floors, cycles


def _module_name(source: Path, path: Path) -> str:
    parts = path.relative_to(source.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _place(source: Path, path: Path) -> str:
    return path.relative_to(source).with_suffix("").parts[0]


def _imports(name: str, path: Path, package: str) -> Iterator[str]:
    """Absolute names that a module imports: modules, or names in modules."""
    here = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == package)
        elif isinstance(node, ast.ImportFrom):
            above = here.split(".")
            start = ".".join(above[: len(above) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (start, node.module or "") if part)
            if base.split(".")[0] == package:
                yield from (f"{base}.{alias.name}" for alias in node.names)


if __name__ == "__main__":
    sys.exit(main())
