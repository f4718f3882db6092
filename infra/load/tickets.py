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
    return list(post(base, f"/api/sales/{sale}/tickets", tokens, "ticket", CONNECTIONS, PIPELINED))


def post(base, path, tokens, field, connections, pipelined):
    """Sends one POST for each token; yields this field of the answers, in the same order."""
    host = urllib.parse.urlparse(base).netloc
    name, port = host.rsplit(":", 1)
    with contextlib.ExitStack() as opened:
        streams = [opened.enter_context(socket.create_connection((name, int(port)))) for _ in range(connections)]
        for at in range(0, len(tokens), connections * pipelined):
            shares = []
            for number, connection in enumerate(streams):
                share = tokens[at + number * pipelined : at + (number + 1) * pipelined]
                if share:
                    connection.sendall(b"".join(request(host, path, token) for token in share))
                    shares.append((connection, len(share)))
            for connection, count in shares:
                yield from answers(connection, field, count)


def request(host, path, token):
    return (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    ).encode()


def answers(connection, field, count):
    text, found = b"", re.compile(rb'"%s":"([^"]+)"' % field.encode())
    while len(values := found.findall(text)) < count or not text.endswith(b"}"):
        more = connection.recv(1 << 18)
        text += more
        refused = re.search(rb"HTTP/1\.1 (?!201)\d{3}[^\r]*\r\n", text)
        if refused or not more:
            raise SystemExit(f"no {field}: {text[refused.start() if refused else 0:][:600]!r}")
    if len(values) != count:
        raise SystemExit(f"{len(values)} of {field} in {count} answers")
    return [value.decode() for value in values]


def main():
    base, sale, users, out = sys.argv[1:]
    tokens = tokens_of(users)
    with open(out, "w") as lines:
        lines.writelines(f"{token},{ticket}\n" for token, ticket in zip(tokens, fetch(base, sale, tokens)))


if __name__ == "__main__":
    main()
