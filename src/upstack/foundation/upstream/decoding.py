"""Content codings taken off again, piece by piece, so that a small body cannot unfold into a large allocation."""

from __future__ import annotations

import zlib
from typing import Any

PIECE = 131_072  # most bytes handed out at once
_SLICE = 16_384  # most input given to zlib at once: it copies what it does not use
_GZIP, _ZLIB, _RAW = 31, 15, -15  # zlib's window sizes that stand for formats
_PLAIN = frozenset((b"", b"identity"))


class Decoder:
    """Undoes gzip or deflate: `feed` bytes in, then call `take` until it gives nothing."""

    __slots__ = ("_at", "_data", "_full", "_gzip", "_tail", "_zlib")

    def __init__(self, coding: bytes) -> None:
        """Take the value of Content-Encoding; raises ValueError for a coding that is not known."""
        if coding not in (b"gzip", b"x-gzip", b"deflate"):
            msg = "unknown content encoding"
            raise ValueError(msg)
        self._gzip = coding != b"deflate"
        self._data = b""
        self._at = 0  # what of _data went into zlib
        self._tail = b""  # what zlib did not use yet
        self._full = False  # zlib may hold more output than it gave
        self._zlib: Any = None  # None: at a border between members

    def feed(self, data: bytes) -> None:
        """Add encoded bytes."""
        self._data = self._data[self._at :] + data
        self._at = 0

    def take(self) -> bytes:
        """Give the next decoded bytes, at most `PIECE`; empty when it needs more input. Raises zlib.error."""
        while self._full or self._tail or self._at < len(self._data):
            if not self._full and not self._tail:
                if self._zlib is None and not self._gzip and len(self._data) == 1:
                    return b""  # the two kinds of deflate differ in their first two bytes
                self._tail = self._data[self._at : self._at + _SLICE]
                self._at += len(self._tail)
            if self._zlib is None:
                self._zlib = self._start()
            piece: bytes = self._zlib.decompress(self._tail, PIECE)
            self._tail = self._zlib.unconsumed_tail
            self._full = len(piece) == PIECE
            if self._zlib.eof:
                self._tail, self._full, self._zlib = self._zlib.unused_data, False, None
                if self._tail and not self._gzip:
                    msg = "bytes after the end of a deflate body"
                    raise zlib.error(msg)
            if piece:
                return piece
        return b""

    @property
    def is_whole(self) -> bool:
        """Whether the encoded body may end here."""
        return self._zlib is None and self._at == len(self._data)

    def _start(self) -> Any:  # zlib does not name the type of its decompressors
        if self._gzip:
            return zlib.decompressobj(_GZIP)
        # "deflate" should mean the zlib format, yet some servers send the bare one. Only the first has this header.
        head = int.from_bytes(self._tail[:2], "big")
        return zlib.decompressobj(_ZLIB if (head >> 8) & 15 == 8 and head % 31 == 0 else _RAW)


def decoder(coding: bytes | None) -> Decoder | None:
    """Give what undoes this Content-Encoding, or None where there is nothing to undo; ValueError if unknown."""
    if coding is None or (coding := coding.strip().lower()) in _PLAIN:
        return None
    return Decoder(coding)
