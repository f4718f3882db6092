"""A small HTTP/1.1 client: a bounded pool of connections that are kept, as a reverse proxy has them."""

import asyncio
import json
import re

TIMEOUT_SECONDS = 20
LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
RETRY_AFTER = re.compile(rb"(?i)\r\nretry-after: *(\d+)")


class Answer:
    """`status` is 0 if no answer came."""

    __slots__ = ("status", "head", "body")

    def __init__(self, status, head=b"", body=b""):
        self.status, self.head, self.body = status, head, body

    def json(self):
        return json.loads(self.body) if self.body else {}

    @property
    def slug(self):
        """The name of the problem; empty for a success."""
        if self.status == 0:
            return "no-answer"
        return self.json()["type"].rsplit("/", 1)[1] if self.status >= 400 else ""

    @property
    def retry_after(self):
        """Seconds to wait, if the answer names them."""
        found = RETRY_AFTER.search(self.head)
        return int(found[1]) if found else 0


class Connection(asyncio.Protocol):
    def __init__(self):
        self.transport, self.read, self.waiting, self.is_open = None, bytearray(), None, True

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, _):
        self.is_open = False
        if self.waiting and not self.waiting.done():
            self.waiting.set_exception(ConnectionError("closed"))

    def data_received(self, data):
        self.read += data
        end = self.read.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.read[:end])
        length = LENGTH.search(head)
        total = end + 4 + (int(length[1]) if length else 0)
        if len(self.read) >= total and self.waiting and not self.waiting.done():
            self.waiting.set_result(Answer(int(head[9:12]), head, bytes(self.read[end + 4 : total])))
            del self.read[:total]

    async def send(self, request):
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self.waiting


class Pool:
    """Requests wait for a free connection in the order in which they came."""

    def __init__(self, base, size):
        self.netloc = base.removeprefix("http://")
        self.free = asyncio.LifoQueue()
        for _ in range(size):
            self.free.put_nowait(None)

    async def ask(self, method, path, client, token="", body=None, entry=""):
        """Sends one request in the name of the address `client`."""
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.netloc}\r\nX-Forwarded-For: {client}\r\nContent-Length: {len(content)}\r\n"
        if content:
            head += "Content-Type: application/json\r\n"
        if token:
            head += f"Authorization: Bearer {token}\r\n"
        if entry:
            head += f"Entry: {entry}\r\n"
        connection, kept = await self.free.get(), None
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                if connection is None or not connection.is_open:
                    connection = await self.open()
                answer = await connection.send(head.encode() + b"\r\n" + content)
            kept = connection
            return answer
        except (OSError, TimeoutError):
            return Answer(0)
        finally:
            # A connection whose answer was not read can't be used again.
            if kept is None and connection is not None and connection.transport:
                connection.transport.abort()
            self.free.put_nowait(kept)

    async def open(self):
        host, port = self.netloc.rsplit(":", 1)
        _, connection = await asyncio.get_running_loop().create_connection(Connection, host, int(port))
        return connection

    def close(self):
        while not self.free.empty():
            connection = self.free.get_nowait()
            if connection is not None:
                connection.transport.abort()
