"""Writes an OCI image layout: a folder for registries and container runtimes, whose only layer is a store.

It is the layer and a few small files (https://github.com/opencontainers/image-spec), so a dependency is not worth it.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

_TYPE = "application/vnd.oci.image"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_PART_BYTES = 1024 * 1024


def write_layout(folder: Path, write_layer: Callable[[BinaryIO], None]) -> None:
    """Write the layout of an image with one layer.

    Args:
        folder: A new folder.
        write_layer: Writes the layer, a tar, to a file.

    Raises:
        OSError: A file could not be written.
    """
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    unnamed = folder / "layer"
    with open(unnamed, "xb") as file:
        write_layer(file)
    layer = _described(unnamed, blobs, f"{_TYPE}.layer.v1.tar")
    machine = platform.machine()
    config = {
        "architecture": _MACHINES.get(machine, machine),
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_TYPE}.manifest.v1+json",
        "config": _described(_json(unnamed, config), blobs, f"{_TYPE}.config.v1+json"),
        "layers": [layer],
    }
    image = _described(_json(unnamed, manifest), blobs, f"{_TYPE}.manifest.v1+json")
    image["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    _json(folder / "index.json", {"schemaVersion": 2, "manifests": [image]})
    _json(folder / "oci-layout", {"imageLayoutVersion": "1.0.0"})


def _json(path: Path, document: dict[str, Any]) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def _described(path: Path, blobs: Path, media_type: str) -> dict[str, Any]:
    """Name a blob by its digest, and return its descriptor."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(_PART_BYTES):
            digest.update(part)
    size = path.stat().st_size
    path.rename(blobs / digest.hexdigest())
    return {"mediaType": media_type, "digest": f"sha256:{digest.hexdigest()}", "size": size}
