"""What the gateway and the ledger's writer say to each other: a length (4 bytes, big-endian), then msgpack.

The gateway says where the ledger and its keystore are, and the writer answers with the number of its chain, or with a
string that says why it cannot be ready. Then batches go one way, and one answer to each the other way: the list of rows
that failed, empty when all are durable. An empty batch asks whether the ledger can write.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from upstack.core.store.rows import Content

LENGTH = struct.Struct("!I")
WHOLE_BATCH = -1  # the index of a failure that is not one row's

Batch = tuple[
    list[tuple[Any, ...]],  # receipts, as rows
    list[Content | None],  # the content of each
    list[tuple[Any, ...]],  # openings: rows with request, subject and whether to encrypt at the end
    list[tuple[Any, ...]],  # outcomes: rows with comment, demonstration, subject and whether to encrypt at the end
]
Place = tuple[str, str | None]  # of the ledger, and of its keystore where it is not in its usual place
Failures = list[tuple[int, str]]  # index of a receipt, or behind all receipts of an outcome, and the reason

_encode_into = msgspec.msgpack.Encoder().encode_into
decode_batch = msgspec.msgpack.Decoder(Batch).decode
decode_failures = msgspec.msgpack.Decoder(Failures).decode
decode_place = msgspec.msgpack.Decoder(Place).decode
decode_ready = msgspec.msgpack.Decoder(str | int).decode


def frame(message: Batch | Failures | Place | str | int) -> bytearray:
    """Make the bytes of one message."""
    buffer = bytearray(LENGTH.size)
    _encode_into(message, buffer, LENGTH.size)
    LENGTH.pack_into(buffer, 0, len(buffer) - LENGTH.size)
    return buffer


ALL_WRITTEN = bytes(frame([]))
