"""Fetches one ticket for each user of a CSV (user_id,phone,token) and writes token,ticket lines.

Usage: tickets.py BASE_URL SALE_ID USERS.csv OUT
"""
import contextlib
import re
import socket
import sys
import urllib.parse

CONNECTIONS = 8
# Requests sent on a connection before its answers are read; answers keep the order of the requests.
PIPELINED = 32


def tokens_of(path, count=None):
    """The tokens of the CSV's first users."""
    with open(path) as users:
        next(users)
        found = []
        for line in users:
            if count is not None and len(found) == count:
                break
            found.append(line.rstrip("\n").rsplit(",", 1)[1])
    if count is not None and len(found) < count:
        raise SystemExit(f"{path} has {len(found)} users, {count} are needed")
    return found


def fetch(base, sale, tokens):
    """A ticket for each token, in the same order."""
    host = urllib.parse.urlparse(base).netloc
    name, port = host.rsplit(":", 1)
    tickets = []
    with contextlib.ExitStack() as opened:
        connections = [opened.enter_context(socket.create_connection((name, int(port)))) for _ in range(CONNECTIONS)]
        for at in range(0, len(tokens), CONNECTIONS * PIPELINED):
            shares = []
            for number, connection in enumerate(connections):
                share = tokens[at + number * PIPELINED : at + (number + 1) * PIPELINED]
                if share:
                    connection.sendall(b"".join(request(host, sale, token) for token in share))
                    shares.append((connection, len(share)))
            for connection, count in shares:
                tickets.extend(answers(connection, count))
    return tickets


def request(host, sale, token):
    return f"POST /api/sales/{sale}/tickets HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n\r\n".encode()


def answers(connection, count):
    text = b""
    while text.count(b'"expires_at"') < count:
        more = connection.recv(1 << 18)
        text += more
        refused = re.search(rb"HTTP/1\.1 (?!201)\d{3}[^\r]*\r\n", text)
        if refused or not more:
            raise SystemExit(f"no ticket: {text[refused.start() if refused else 0:][:600]!r}")
    found = re.findall(rb'"ticket":"([^"]+)"', text)
    if len(found) != count:
        raise SystemExit(f"{len(found)} tickets in {count} answers")
    return [ticket.decode() for ticket in found]


def main():
    base, sale, users, out = sys.argv[1:]
    tokens = tokens_of(users)
    with open(out, "w") as lines:
        lines.writelines(f"{token},{ticket}\n" for token, ticket in zip(tokens, fetch(base, sale, tokens)))


if __name__ == "__main__":
    main()
