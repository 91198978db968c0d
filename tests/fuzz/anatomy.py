"""A pack taken apart, so that its parts can be changed and put together again with digests that are right."""

from __future__ import annotations

import hashlib
import io
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from b10_transfer.errors import PackError
from b10_transfer.pack import trailer
from b10_transfer.pack.zstd import ZstdError, pack_frame, unpack_frame

_MOST_RAW_BYTES = 4 * 1024 * 1024


@dataclass
class Anatomy:
    """The parts of a pack: what lies before the index, the index's text and what that says, the extension."""

    frames: list[bytes]
    index: bytes
    document: dict[str, Any]
    extension: bytes = b""

    @classmethod
    def of(cls, pack: bytes) -> Anatomy | None:
        """Take a pack apart; None if that cannot be done."""
        try:
            footer = trailer.decode_footer("", pack[-trailer.FOOTER_BYTES :].rjust(trailer.FOOTER_BYTES), len(pack))
            extensions: list[bytes] = []
            if footer.index_raw_bytes > _MOST_RAW_BYTES:
                return None
            end = pack[-footer.trailer_bytes :]
            index = trailer.decode_index("", footer, end, lambda _index, extension: extensions.append(extension))
            document = json.loads(index)
            frames, start = [], 0
            for size, _raw_bytes, _sha256 in document["frames"]:
                frames.append(pack[start : start + size])
                start += size
        except (PackError, ValueError, TypeError, KeyError, IndexError, RecursionError):
            return None
        return cls(frames, bytes(index), document, extensions[0]) if isinstance(document, dict) else None

    def stream(self) -> bytes | None:
        """What the frames hold; None if one cannot be unpacked."""
        with suppress(ZstdError, ValueError, TypeError, KeyError):
            parts = []
            for frame, (_size, raw_bytes, _sha256) in zip(self.frames, self.document["frames"], strict=True):
                if not isinstance(raw_bytes, int) or not 0 <= raw_bytes <= _MOST_RAW_BYTES:
                    return None
                parts.append(unpack_frame(frame, raw_bytes))
            return b"".join(parts)
        return None

    def reframe(self, parts: list[bytes]) -> None:
        """Have these parts, one frame each, for a stream."""
        self.frames = [pack_frame(part) for part in parts]
        self.document["frames"] = [[0, len(part), ""] for part in parts]
        self.describe_frames()

    def describe_frames(self) -> None:
        """Have the index say of each frame what is true of its packed bytes."""
        for frame, fields in zip(self.frames, self.document["frames"], strict=False):
            if isinstance(fields, list) and len(fields) == 3:
                fields[0], fields[2] = len(frame), hashlib.sha256(frame).hexdigest()

    def rewrite_index(self) -> None:
        """Make the index's text anew out of the document."""
        with suppress(ValueError, RecursionError):
            self.index = json.dumps(self.document, separators=(",", ":"), sort_keys=True).encode("utf-8", "replace")

    def pack(self) -> bytes:
        """All of it together, with a footer that is right."""
        frames = b"".join(self.frames)
        out = io.BytesIO(frames + trailer.encode(self.index, len(frames)))
        if self.extension:
            trailer.extend(out, lambda _index: self.extension)
        return out.getvalue()
