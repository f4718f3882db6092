"""Tests of tickets.py: python3 -m unittest discover -s infra/load"""
import contextlib
import socket
import tempfile
import threading
import unittest
from pathlib import Path

import tickets


class Gateway(threading.Thread):
    """Answers each request with a ticket that names its token, in pieces of seven bytes."""

    def __init__(self, status="201 Created"):
        super().__init__(daemon=True)
        self.status, self.listener = status, socket.create_server(("127.0.0.1", 0))
        self.base = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        self.start()

    def run(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        # The client may hang up.
        with contextlib.suppress(ConnectionError), connection, connection.makefile("rb") as lines:
            for line in lines:
                if line.startswith(b"Authorization: Bearer "):
                    body = '{"ticket":"for-%s","order_id":"x","expires_at":"y"}' % line.split()[-1].decode()
                    answer = f"HTTP/1.1 {self.status}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
                    for at in range(0, len(answer), 7):
                        connection.sendall(answer[at : at + 7])


class Tickets(unittest.TestCase):
    def test_every_token_gets_its_own_ticket(self):
        # More than one turn of all connections, and a last one that not all of them have work in.
        tokens = [f"t{number}" for number in range(tickets.CONNECTIONS * tickets.PIPELINED + 40)]
        self.assertEqual(tickets.fetch(Gateway().base, "sale", tokens), [f"for-{token}" for token in tokens])

    def test_a_refusal_ends_it(self):
        with self.assertRaisesRegex(SystemExit, "no ticket: .*409 Conflict"):
            tickets.fetch(Gateway("409 Conflict").base, "sale", ["t"])

    def test_the_first_users_of_a_file(self):
        with tempfile.NamedTemporaryFile("w", suffix=".csv") as users:
            users.write("user_id,phone,token\nu1,+1,a\nu2,+2,b\n")
            users.flush()
            self.assertEqual(tickets.tokens_of(Path(users.name)), ["a", "b"])
            self.assertEqual(tickets.tokens_of(Path(users.name), 1), ["a"])
            with self.assertRaisesRegex(SystemExit, "2 users, 3 are needed"):
                tickets.tokens_of(Path(users.name), 3)


if __name__ == "__main__":
    unittest.main()
