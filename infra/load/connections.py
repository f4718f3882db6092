"""Holds connections to emulators and prints what each costs in memory; infra/load/connections calls this.

Usage: connections.py N PATH PID,HOST:PORT…

One process per emulator holds that emulator's share, each from a source address of its own, because an address has only about
28,000 ports. Exits with 1 if a connection is refused, gets no page, or is closed while it waits.
"""

import multiprocessing
import pathlib
import re
import select
import socket
import sys
import time

# A real client's page is asked for by this many at once, so that the emulator's buffers for requests stay those of a queue at
# the door and not of a burst.
AT_ONCE = 100
WAIT_SECONDS = 10
TIMEOUT_SECONDS = 20


def resident(pid):
    return int(re.search(r"VmRSS:\s*(\d+) kB", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def page(stream):
    """Reads one answer and returns its status."""
    read = b""
    while b"\r\n\r\n" not in read:
        more = stream.recv(16384)
        if not more:
            return 0
        read += more
    head, body = read.split(b"\r\n\r\n", 1)
    left = int(re.search(rb"(?i)content-length: *(\d+)", head)[1]) - len(body)
    while left > 0:
        left -= len(stream.recv(left)) or left
    return int(head.split()[1])


def open_some(count, source, host, port, request):
    streams = []
    for _ in range(count):
        stream = socket.create_connection((host, port), timeout=TIMEOUT_SECONDS, source_address=(source, 0))
        stream.sendall(request)
        streams.append(stream)
    for stream in streams:
        if (status := page(stream)) != 200:
            raise OSError(f"the sale's page answers {status}")
    return streams


def hold(count, source, address, path, answers, leave):
    host, port = address.rsplit(":", 1)
    request = f"GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode()
    held = []
    try:
        while len(held) < count:
            held += open_some(min(AT_ONCE, count - len(held)), source, host, int(port), request)
        answers.put(None)
    except OSError as error:
        answers.put(f"{address}: {error} (connection {len(held) + 1} to {len(held) + AT_ONCE})")
        return
    leave.wait()
    # Nothing was asked, so a readable connection has been closed.
    poll = select.poll()
    for stream in held:
        poll.register(stream, select.POLLIN)
    closed = len(poll.poll(0))
    answers.put(f"{address}: {closed} connections were closed while they waited" if closed else None)


def main(count, path, targets):
    targets = [target.split(",") for target in targets]
    shares = [count // len(targets) + (n < count % len(targets)) for n in range(len(targets))]
    answers, leave = multiprocessing.Queue(), multiprocessing.Event()
    for _, address in targets:
        host, port = address.rsplit(":", 1)
        # What a first request makes once for all is not a connection's cost.
        open_some(1, "127.0.0.1", host, int(port), f"GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
    before = [resident(pid) for pid, _ in targets]
    begun = time.monotonic()
    holders = []
    for n, ((_, address), share) in enumerate(zip(targets, shares)):
        holder = multiprocessing.Process(
            target=hold, args=(share, f"127.0.0.{n + 2}", address, path, answers, leave), daemon=True
        )
        holder.start()
        holders.append(holder)
    if faults := [fault for _ in holders if (fault := answers.get())]:
        sys.exit("\n".join(faults))
    took = time.monotonic() - begun
    time.sleep(WAIT_SECONDS)
    after = [resident(pid) for pid, _ in targets]
    leave.set()
    faults = [fault for _ in holders if (fault := answers.get())]
    print(f"{count:,} connections opened within {took:.0f} s, then idle for {WAIT_SECONDS} s")
    for n, (share, old, new) in enumerate(zip(shares, before, after), 1):
        print(
            f"emulator {n}: {share:6,} connections, memory {old / 2**20:5.0f} MiB before, "
            f"{new / 2**20:5.0f} MiB with them: {(new - old) / share:6,.0f} bytes each"
        )
    if len(targets) > 1:
        print(f"together: {(sum(after) - sum(before)) / count:,.0f} bytes for each connection")
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    match sys.argv[1:]:
        case [count, path, *targets] if count.isdigit() and targets:
            main(int(count), path, targets)
        case _:
            sys.exit(__doc__)
