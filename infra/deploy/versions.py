"""infra/deploy/versions calls this.

    binaries DIR/TARGET…    reads cargo's messages and prints where each of these targets was built, one per line
    ask HOLD                starts the servers that come first on PATH and prints the versions they report, one per line
    compare README SETS [SET]  checks that the table in the README has a row for each of these sets and no other; with SET,
                            that its row names the servers on standard input
"""

import json
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
START_SECONDS = 90


def binaries(wanted):
    built = {}
    for line in sys.stdin:
        message = json.loads(line)
        if message.get("executable"):
            package = pathlib.Path(message["manifest_path"]).parent.relative_to(ROOT)
            built[f"{package}/{message['target']['name']}"] = message["executable"]
    for target in wanted:
        if target not in built:
            sys.exit(f"cargo has not built {target}; it has built {', '.join(sorted(built))}")
        print(built[target])


def connect(url):
    host, port = re.search(r"([0-9.]+):(\d+)", url).groups()
    return socket.create_connection((host, int(port)), timeout=10)


def read_until(stream, pattern):
    """Reads until the pattern matches, and returns its first group as text."""
    read = b""
    while not (found := re.search(pattern, read, re.DOTALL)):
        more = stream.recv(4096)
        if not more:
            sys.exit(f"the server has closed the connection after {read[:200]!r}")
        read += more
    return found[1].decode()


def redis(url):
    with connect(url) as stream:
        stream.sendall(b"INFO server\r\n")
        # Valkey also has a line `redis_version`, which names a Redis that it is compatible with.
        answer = read_until(stream, rb"(# Server.*?)\r\n\r?\n?$")
    said = dict(line.split(":", 1) for line in answer.splitlines()[1:])
    return f"Valkey {said['valkey_version']}" if "valkey_version" in said else f"Redis {said['redis_version']}"


def mysql(url):
    with connect(url) as stream:
        # The greeting: length and number, protocol version 10, the version. Old MariaDBs put 5.5.5- in front.
        version = read_until(stream, rb"^.{4}\x0a(?:5\.5\.5-)?([^\x00]+)\x00")
    return ("MariaDB " if "MariaDB" in version else "MySQL ") + re.match("[0-9.]+", version)[0]


def rabbitmq(url):
    with connect(url) as stream:
        stream.sendall(b"AMQP\x00\x00\x09\x01")
        # In the server's properties of Connection.Start: a long string of fewer than 256 bytes.
        return "RabbitMQ " + read_until(stream, rb"\x07versionS\x00\x00\x00.([0-9][0-9.]*)")


def ask(hold):
    with tempfile.TemporaryDirectory(prefix="fsv-") as directory:
        servers = subprocess.Popen([hold, directory], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        try:
            addresses = pathlib.Path(directory, "urls")
            until = time.monotonic() + START_SECONDS
            while not addresses.exists():
                if servers.poll() is not None or time.monotonic() > until:
                    sys.exit("the servers did not start")
                time.sleep(0.1)
            urls = dict(line.split("=", 1) for line in addresses.read_text().splitlines())
            print(redis(urls["redis"]), mysql(urls["mysql"]), rabbitmq(urls["amqp"]), sep="\n")
        finally:
            servers.stdin.close()
            servers.wait()


def compare(readme, sets, chosen=None):
    rows = {}
    for line in pathlib.Path(readme).read_text().splitlines():
        if row := re.match(r"\| `(\w+)` \| (.*) \|$", line):
            if re.search(r"\bRabbitMQ \d", line):
                rows[row[1]] = row[2].split(" | ")[:3]
    if set(rows) != set(sets.split()):
        sys.exit(f"{readme}: its table of versions has rows for {', '.join(rows)}, and the sets are {sets}")
    if chosen is not None:
        # A row names releases (RabbitMQ 4.0), a server its patch too (4.0.5).
        ran = [re.sub(r"^(\w+ \d+\.\d+).*", r"\1", line.strip()) for line in sys.stdin]
        if rows[chosen] != ran:
            sys.exit(f"{readme}: the row of `{chosen}` names {', '.join(rows[chosen])}, and what runs is {', '.join(ran)}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["binaries", *wanted]:
            binaries(wanted)
        case ["ask", hold]:
            ask(hold)
        case ["compare", readme, sets, *chosen]:
            compare(readme, sets, *chosen)
        case _:
            sys.exit(__doc__)
