"""A provider that streams: `chunks` events of about 250 bytes, `gap` seconds apart, each in a write of its own.

python -m benchmarks.data_plane.upstream PORT CHUNKS GAP
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
EVENT = (
    b'data: {"id":"chatcmpl-0123456789","object":"chat.completion.chunk","created":1700000000,"model":"bench",'
    b'"system_fingerprint":"fp_0123456789","choices":[{"index":0,"delta":{"content":" benchmark"},"logprobs":null,'
    b'"finish_reason":null}],"usage":null}\n\n'
)
LAST = (
    b'data: {"id":"chatcmpl-0123456789","object":"chat.completion.chunk","created":1700000000,"model":"bench",'
    b'"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}\n\n'
    b'data: {"id":"chatcmpl-0123456789","object":"chat.completion.chunk","created":1700000000,"model":"bench",'
    b'"choices":[],"usage":{"prompt_tokens":200,"completion_tokens":100,"total_tokens":300}}\n\n'
    b"data: [DONE]\n\n"
)


def chunk(data: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Streamer(asyncio.Protocol):
    """Answers each request, of which it reads only the end, with the stream."""

    chunks = 100
    gap = 0.002

    def connection_made(self, transport: Any) -> None:
        """Take a connection."""
        self.transport = transport
        self.seen = b""
        self.sent = 0

    def data_received(self, data: bytes) -> None:
        """Start to stream once the whole request is here."""
        self.seen += data
        head, found, body = self.seen.partition(b"\r\n\r\n")
        if found:
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            if len(body) >= length:
                self.seen = b""
                self.sent = 0
                self.write(HEAD)
                self.step()

    def write(self, data: bytes) -> None:
        """Send unless the caller has left."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def step(self) -> None:
        """Send one event and plan the next."""
        if self.sent == self.chunks:
            self.write(chunk(LAST) + b"0\r\n\r\n")
            return
        self.sent += 1
        self.write(chunk(EVENT))
        asyncio.get_running_loop().call_later(self.gap, self.step)


async def main(port: int) -> None:
    """Serve for ever."""
    server = await asyncio.get_running_loop().create_server(Streamer, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    Streamer.chunks, Streamer.gap = int(sys.argv[2]), float(sys.argv[3])
    uvloop.run(main(int(sys.argv[1])))
