"""infra/load/run calls this.

    facts WORK GENERATOR EMULATOR PID…   prints what runs: processor, versions, and the processor time used so far
    use WORK PID…                        prints memory and processor time of the processes after the run
    write WORK OUT                       reads WORK/facts, results, audit; writes report.md, report.html and picture.svg to OUT,
                                         and exits with 1, naming every reason, if the run has failed

`facts` has one name=value per line. `results` has one line of JSON per shopper, the same from both generators. Times are
milliseconds since the sale's opening, null for what did not happen:

    shopper        number from 0
    pressed_ms     planned moment of pressing
    final_ms       arrival of the final answer: a 202, or a refusal that repeating does not change
    outcome        "ordered", or the refusal's slug
    order_id, status   the order, and its status when the shopper last asked
    seen_ms        when the shopper saw a status other than "queued"
    recorded_ms    when the order was confirmed in the ledger (its updated_at)
    answers        every answer: [request, time, HTTP status (0: none), slug or status]
"""

import collections
import html
import json
import math
import os
import pathlib
import re
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
# Final answers that a sale may give. Others are errors.
EXPECTED = {"ordered", "sold-out"}
# Refusals after which a shopper repeats its request, as API.md says.
REPEATED = {"sale-not-open", "rate-limited"}
SERVERS = {"redis-server": "Redis", "mariadbd": "MariaDB", "mysqld": "MySQL", "beam.smp": "RabbitMQ"}


# -- processes


def processor_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def server_processes(work):
    """The private servers: their command lines name the run's directory."""
    found = {}
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            name, line = (path / "comm").read_text().strip(), (path / "cmdline").read_bytes().decode(errors="replace")
            # Redis shows its address instead of its arguments.
            if name in SERVERS and (str(work) in line or str(work) in os.readlink(path / "cwd")):
                found[int(path.name)] = SERVERS[name]
        except OSError:
            continue
    return found


def processes(work, pids):
    return {**{int(pid): "emulators" for pid in pids}, **server_processes(work)}


def spent(work, pids):
    total = collections.Counter()
    for pid, name in processes(work, pids).items():
        total[name] += processor_seconds(pid)
    return total


def children_seconds(path):
    """The second line of bash's `times`: user and system time of processes that have ended."""
    return sum(
        int(minutes) * 60 + float(seconds)
        for minutes, seconds in re.findall(r"(\d+)m([\d.]+)s", path.read_text().splitlines()[1])
    )


def versions(work):
    sys.path.insert(0, str(HERE.parent / "deploy"))
    import versions as servers

    urls = dict(
        line.split("=", 1) for line in pathlib.Path(work, "data/servers/functions.env").read_text().splitlines()
    )
    return ", ".join(
        [
            servers.redis(urls["FLASHSALE_REDIS_URL"]),
            servers.mysql(urls["FLASHSALE_DATABASE_URL"]),
            servers.rabbitmq(urls["FLASHSALE_AMQP_URL"]),
        ]
    )


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def facts(work, generator, emulator, *pids):
    cpu = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    yield "processor", f"{cpu[1] if cpu else 'unknown'}, {os.cpu_count()} cores"
    yield "servers", versions(work)
    yield "emulator", f"{len(pids)} x {run(emulator, '--version')}"
    yield "generator_name", (
        " ".join(run("k6", "version").split()[:2]) if generator == "k6" else "local-emulator/examples/shoppers.rs"
    )
    yield "when", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    for name, seconds in spent(work, pids).items():
        yield f"before {name}", f"{seconds:.2f}"


def use(work, *pids):
    for name, seconds in spent(work, pids).items():
        yield f"after {name}", f"{seconds:.2f}"
    for when in ("before", "after"):
        yield f"{when} generator", f"{children_seconds(pathlib.Path(work, f'times.{when}')):.2f}"
    for number, pid in enumerate(pids, 1):
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        for name in ("VmRSS", "VmHWM"):
            yield f"{name} {number}", re.search(rf"{name}:\s*(\d+) kB", status)[1]


# -- results


def percentile(values, share):
    """The nearest rank; of no values, None."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def read(work):
    known = dict(line.split("=", 1) for line in pathlib.Path(work, "facts").read_text().splitlines())
    records, messages = [], []
    results = pathlib.Path(work, "results")
    for line in results.read_text().splitlines() if results.exists() else []:
        try:
            records.append(json.loads(line) if line.startswith("{") else messages.append(line) or None)
        except ValueError:
            messages.append(line)
    for name in ("generator", "err.1", "err.2"):
        if pathlib.Path(work, name).exists():
            messages += pathlib.Path(work, name).read_text().splitlines()
    audit = pathlib.Path(work, "audit").read_text().strip()
    return known, [record for record in records if record], messages, audit


def errors_of(record):
    """What went wrong for one shopper."""
    for request, _, status, label in record["answers"]:
        if status == 0 or status >= 500:
            yield f"{request}: {label}"
    if record["outcome"] not in EXPECTED:
        yield f"final answer: {record['outcome']}"
    elif record["final_ms"] is None:
        yield "no final answer"
    if record["outcome"] == "ordered" and record["status"] != "confirmed":
        yield f"an accepted order stayed {record['status']}"


def judge(known, records, audit):
    """Every reason for which the run has failed."""
    shoppers, units = int(known["shoppers"]), int(known["units"])
    if known["generator"] != "0":
        yield f"the generator exited with {known['generator']}"
    if len({record["shopper"] for record in records}) != shoppers or len(records) != shoppers:
        yield f"{len(records)} of {shoppers} shoppers have a result"
    for error, count in collections.Counter(error for record in records for error in errors_of(record)).most_common():
        yield f"{error} ({count} times)"
    orders = [record["order_id"] for record in records if record["outcome"] == "ordered"]
    if len(set(orders)) != len(orders):
        yield "two shoppers have the same order"
    if len(orders) > units:
        yield f"{len(orders)} orders were accepted for {units} units"
    elif len(orders) < min(units, shoppers):
        yield f"only {len(orders)} orders were accepted for {units} units and {shoppers} shoppers"
    if known["audit"] != "0":
        yield f"the books do not balance (audit exited with {known['audit']})"
    elif (sold := re.search(r"sold (\d+)", audit)) and int(sold[1]) != len(orders):
        yield f"the ledger has {sold[1]} orders, and shoppers {len(orders)}"


# -- report


def ms(value):
    return "-" if value is None else f"{value:,.0f} ms" if value >= 10 else f"{value:.1f} ms"


def latencies(records):
    """Name and values: milliseconds from the planned press."""

    def since(name, wanted):
        return [
            record[name] - record["pressed_ms"] for record in records if record[name] is not None and wanted(record)
        ]

    return {
        "final answer, all": since("final_ms", lambda record: True),
        "final answer, order accepted": since("final_ms", lambda record: record["outcome"] == "ordered"),
        "final answer, refused": since("final_ms", lambda record: record["outcome"] != "ordered"),
        "order confirmed in the ledger": since("recorded_ms", lambda record: True),
        "shopper sees it (asks twice a second)": since("seen_ms", lambda record: True),
    }


def tables(known, records, audit):
    answers = collections.Counter((answer[0], answer[3]) for record in records for answer in record["answers"])
    outcomes = collections.Counter(record["outcome"] for record in records)
    arrivals = [record["answers"][0][1] for record in records if record["answers"]]
    yield "The run", None, [
        ("when", known["when"]),
        ("shoppers", f"{int(known['shoppers']):,}, each with its own connection"),
        ("units", f"{int(known['units']):,}"),
        (
            "arrived",
            f"{-min(arrivals) / 1000:.1f} to {-max(arrivals) / 1000:.1f} s before the opening" if arrivals else "-",
        ),
        ("pressed", f"within {int(known['window']):,} ms after the opening, at random moments"),
        ("processor", f"{known['processor']}, for servers, emulators and generator together"),
        ("servers", known["servers"]),
        ("emulators", known["emulator"]),
        ("generator", known["generator_name"]),
        ("requests", f"{sum(answers.values()):,}"),
        ("errors", f"{sum(1 for record in records for _ in errors_of(record)):,}"),
        ("audit", audit.splitlines()[-1] if audit else "-"),
    ]
    yield "Latency, from the planned press", ("", "count", "p50", "p90", "p99", "max"), [
        (name, f"{len(values):,}", *(ms(percentile(values, share)) for share in (0.5, 0.9, 0.99, 1)))
        for name, values in latencies(records).items()
    ]
    yield "Outcomes", ("final answer", "shoppers"), [
        (str(name), f"{count:,}") for name, count in outcomes.most_common()
    ]
    yield "Answers", ("request", "answer", "count"), [(*name, f"{count:,}") for name, count in sorted(answers.items())]
    names = [name[6:] for name in known if name.startswith("after ")]
    rows = [(name, f"{float(known[f'after {name}']) - float(known.get(f'before {name}', 0)):.2f} s") for name in names]
    yield "Processor time, from the generator's start to its end", ("", "time"), rows
    count = sum(name.startswith("VmRSS") for name in known)
    yield "Memory of the emulators", ("", "after the run", "at most"), [
        (f"emulator {n}", *(f"{int(known[f'{name} {n}']) / 1024:.0f} MiB" for name in ("VmRSS", "VmHWM")))
        for n in range(1, count + 1)
    ]


def markdown(title, verdict, parts):
    lines = [
        f"# {title}",
        "",
        verdict,
        "",
        "![Latency by percentile, answers per 100 ms, units over time](picture.svg)",
    ]
    for heading, head, rows in parts:
        head = head or ("", "")
        lines += ["", f"## {heading}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def page(title, verdict, parts, drawing):
    def row(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = [f"<h1>{html.escape(title)}</h1><p>{html.escape(verdict)}</p>", drawing]
    for heading, head, rows in parts:
        body.append(
            f"<h2>{html.escape(heading)}</h2><table>"
            + (row(head, "th") if head else "")
            + "".join(row(cells, "td") for cells in rows)
            + "</table>"
        )
    style = (
        "body{font:16px/1.5 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em}"
        "svg{width:100%;height:auto}td,th{padding:.2em 1em .2em 0;text-align:left}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}</style>'
        + "\n".join(body)
        + "</html>\n"
    )


# -- picture

WIDTH, HEIGHT, LEFT, RIGHT = 960, 250, 70, 200
INK, FAINT = "#24292f", "#d0d7de"
BLUE, ORANGE, GREEN, GREY, RED = "#0969da", "#bc4c00", "#1a7f37", "#8c959f", "#cf222e"


def text(x, y, words, color=INK, anchor="start", size=13):
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}" text-anchor="{anchor}" font-size="{size}">{html.escape(words)}</text>'


def line(x1, y1, x2, y2, color=FAINT):
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{color}" fill="none"/>'


def curve(points, color):
    return (
        f'<path d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in points)}" stroke="{color}" stroke-width="2" fill="none"/>'
    )


def nice(most):
    """A step so that at most five of them reach `most`."""
    power = 10 ** math.floor(math.log10(max(most, 1) / 5)) if most > 5 else 1
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * 5 >= most)


class Panel:
    def __init__(self, number, title, top_value, logarithmic_from=None):
        self.top, self.bottom = number * HEIGHT + 45, (number + 1) * HEIGHT - 35
        self.log = log = logarithmic_from is not None
        # Powers of ten; below a millisecond no clock here is exact.
        self.low = math.floor(math.log10(max(logarithmic_from, 1))) if log else 0
        self.step = nice(top_value)
        self.most = (
            10 ** max(self.low + 1, math.ceil(math.log10(max(top_value, 1))))
            if log
            else self.step * math.ceil(max(top_value, 1) / self.step)
        )
        self.parts = [text(LEFT, self.top - 18, title, size=15)]
        ticks = (
            [10**n for n in range(self.low, round(math.log10(self.most)) + 1)]
            if log
            else [self.step * n for n in range(round(self.most / self.step) + 1)]
        )
        for tick in ticks:
            self.parts += [
                line(LEFT, self.y(tick), WIDTH - RIGHT, self.y(tick)),
                text(LEFT - 8, self.y(tick) + 4, f"{tick:,.0f}", anchor="end", size=12),
            ]

    def y(self, value):
        share = (
            (math.log10(max(value, 10**self.low)) - self.low) / (math.log10(self.most) - self.low)
            if self.log
            else value / self.most
        )
        return self.bottom - share * (self.bottom - self.top)

    def x(self, share):
        return LEFT + share * (WIDTH - RIGHT - LEFT)

    def tick(self, share, words):
        self.parts += [
            line(self.x(share), self.bottom, self.x(share), self.bottom + 5),
            text(self.x(share), self.bottom + 19, words, anchor="middle", size=12),
        ]

    def legend(self, entries):
        for n, (words, color) in enumerate(entries):
            y = self.top + 8 + n * 20
            self.parts += [
                f'<rect x="{WIDTH - RIGHT + 14}" y="{y - 9}" width="11" height="11" fill="{color}"/>',
                text(WIDTH - RIGHT + 31, y, words, size=12),
            ]


def picture(known, records):
    units = int(known["units"])
    shown = {name: values for name, values in latencies(records).items() if values}
    chosen = {
        "final answer, all": ("final answer", BLUE),
        "order confirmed in the ledger": ("confirmed in the ledger", GREEN),
    }
    curves = [(words, color, shown[name]) for name, (words, color) in chosen.items() if name in shown]
    every = [value for _, _, values in curves for value in values] or [1]
    first = Panel(0, "Milliseconds from the planned press, by percentile", max(every), logarithmic_from=min(every))
    nines = [0.0, 0.5, 0.9, 0.99, 0.999]

    def place(share):
        return min(-math.log10(max(1 - share, 1e-9)) / 4, 1)

    for share in nines:
        first.tick(place(share), "min" if share == 0 else f"p{share * 100:g}")
    first.tick(1, "max")
    for words, color, values in curves:
        shares = [n / 400 * 4 for n in range(401)]
        first.parts.append(
            curve(
                [
                    (first.x(share / 4), first.y(percentile(values, 1 if share >= 4 else 1 - 10**-share)))
                    for share in shares
                ],
                color,
            )
        )
    first.legend([(words, color) for words, color, _ in curves])

    kinds = [
        ("order accepted (202)", GREEN),
        ("ticket issued (201)", BLUE),
        ("sold out (409)", GREY),
        ("to be repeated (429, early)", ORANGE),
        ("error", RED),
    ]

    def kind(request, status, label):
        if request not in ("ticket", "order"):
            return None
        return (
            0 if status == 202 else 1 if status == 201 else 2 if label == "sold-out" else 3 if label in REPEATED else 4
        )

    found = [
        (at, kind(request, status, label)) for record in records for request, at, status, label in record["answers"]
    ]
    found = [(max(at, 0), what) for at, what in found if what is not None]
    end = max([at for at, _ in found] + [record["recorded_ms"] or 0 for record in records] + [int(known["window"])])
    buckets = min(math.ceil(end / 100) + 1, 600)
    bars = [[0] * len(kinds) for _ in range(buckets)]
    for at, what in found:
        bars[min(int(at // 100), buckets - 1)][what] += 1
    second = Panel(1, "Answers per 100 ms since the opening", max(map(sum, bars)))
    for n, bar in enumerate(bars):
        below = 0
        for what, count in enumerate(bar):
            if count:
                top, bottom = second.y(below + count), second.y(below)
                x, width = second.x(n / buckets) + 0.5, max(second.x(1 / buckets) - LEFT - 1, 1)
                second.parts.append(
                    f'<rect x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" height="{bottom - top:.1f}" fill="{kinds[what][1]}"/>'
                )
                below += count
    used = {what for _, what in found}
    second.legend([entry for n, entry in enumerate(kinds) if n in used])

    third = Panel(2, "Units", units)

    def left(times):
        points, remaining = [(third.x(0), third.y(units))], units
        for at in sorted(times):
            x = third.x(min(max(at, 0) / (buckets * 100), 1))
            points += [(x, third.y(max(remaining, 0))), (x, third.y(max(remaining - 1, 0)))]
            remaining -= 1
        return points + [(third.x(1), third.y(max(remaining, 0)))]

    third.parts.append(curve(left(record["final_ms"] for record in records if record["outcome"] == "ordered"), BLUE))
    third.parts.append(
        curve(left(record["recorded_ms"] for record in records if record["recorded_ms"] is not None), GREEN)
    )
    third.legend([("without an accepted order", BLUE), ("without a row in the ledger", GREEN)])
    step = nice(buckets * 100)
    for panel in (second, third):
        for n in range(int(buckets * 100 // step) + 1):
            panel.tick(n * step / (buckets * 100), f"{n * step / 1000:g} s")
    parts = [part for panel in (first, second, third) for part in panel.parts]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {3 * HEIGHT}" width="{WIDTH}" height="{3 * HEIGHT}" '
        f'font-family="system-ui,sans-serif" role="img">'
        f'<title>Latency by percentile, answers per 100 ms, units over time</title><rect width="100%" height="100%" fill="#fff"/>'
        + "\n".join(parts)
        + "</svg>\n"
    )


def write(work, out):
    known, records, messages, audit = read(work)
    reasons = list(judge(known, records, audit))
    for message in messages[:10] if reasons else []:
        print(f"message of a program: {message}", file=sys.stderr)
    out = pathlib.Path(out)
    all_final = latencies(records)["final answer, all"]
    title = f"{int(known['shoppers']):,} shoppers, {int(known['units']):,} units"
    verdict = (
        "FAILED: " + "; ".join(reasons) + "."
        if reasons
        else (
            f"Every shopper has a final answer, no request failed, the books balance. Final answer: p50 {ms(percentile(all_final, 0.5))}, "
            f"p99 {ms(percentile(all_final, 0.99))}, at most {ms(max(all_final))} after pressing."
        )
    )
    drawing = picture(known, records)
    parts = list(tables(known, records, audit))
    (out / "picture.svg").write_text(drawing)
    (out / "report.md").write_text(markdown(title, verdict, parts))
    (out / "report.html").write_text(page(title, verdict, parts, drawing))
    print(f"{title}: {verdict}\n{out}/report.html")
    return 1 if reasons else 0


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["facts", work, generator, emulator, *pids]:
            print("\n".join(f"{name}={value}" for name, value in facts(work, generator, emulator, *pids)))
        case ["use", work, *pids]:
            print("\n".join(f"{name}={value}" for name, value in use(work, *pids)))
        case ["write", work, out]:
            sys.exit(write(work, out))
        case _:
            sys.exit(__doc__)
