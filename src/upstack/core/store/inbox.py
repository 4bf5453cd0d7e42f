"""Whole messages from a socket, as the writer reads them."""

from __future__ import annotations

import socket

from upstack.core.store.frames import LENGTH

_BUFFER_BYTES = 256 * 1024


class Inbox:
    """Reads frames from a blocking socket into one buffer that is used again."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray(_BUFFER_BYTES)

    def read(self) -> memoryview | None:
        """Return the next message, good until the next call; None at the end, a half message included."""
        have = self._fill(memoryview(self._buffer), 0, LENGTH.size)
        if have < LENGTH.size:
            return None
        end = LENGTH.size + LENGTH.unpack_from(self._buffer)[0]
        buffer = self._buffer
        if end > len(buffer):  # a large content: a buffer of its own, given back after it
            buffer = bytearray(end)
            buffer[:have] = memoryview(self._buffer)[:have]
        view = memoryview(buffer)
        if self._fill(view, have, end) < end:
            return None
        return view[LENGTH.size : end]  # the gateway sends the next only after the answer, so nothing comes behind it

    def _fill(self, view: memoryview, have: int, need: int) -> int:
        while have < need:
            try:
                got = self._connection.recv_into(view[have:])
            except ConnectionResetError:  # the gateway was killed with an answer unread
                got = 0
            if not got:
                break
            have += got
        return have
