"""The command line of infra/load/bots."""

import argparse
import pathlib
import resource
import signal
import sys

from . import scenarios, store, tables
from .play import play

DEFAULT_OUT = "target/load-report/bots"


def positive(text):
    if not text.isdigit() or not 1 <= int(text) <= 999_999:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to 999999, not '{text}'")
    return int(text)


def arguments():
    parser = argparse.ArgumentParser(prog="infra/load/bots", description="Shares of one attacker, by defence.")
    parser.add_argument("--honest", type=positive, default=5000, help="honest shoppers (5000)")
    parser.add_argument("--attackers", type=positive, default=1000, help="accounts of the attacker (1000)")
    parser.add_argument("--units", type=positive, default=500, help="units for sale (500)")
    parser.add_argument("--phones", type=positive, default=100, help="phone numbers that the attacker owns (100)")
    parser.add_argument("--prepared", type=positive, default=20, help="accounts that he has before the announcement (20)")
    parser.add_argument("--seed", type=int, default=1, help="of the simulation's random numbers (1)")
    parser.add_argument("--scenario", action="append", default=[], metavar="NAME", help="only this one; may be repeated")
    parser.add_argument("--list", action="store_true", help="prints the names of the scenarios")
    parser.add_argument("--out", default=DEFAULT_OUT, help=f"folder of report.md, picture.svg, results.json ({DEFAULT_OUT})")
    parser.add_argument("--emulator", required=True, help=argparse.SUPPRESS)
    return parser


def main():
    parser = arguments()
    options = parser.parse_args()
    if options.list:
        print("\n".join(scenario.name for scenario in scenarios.SCENARIOS))
        return 0
    try:
        rows = scenarios.chosen(options.scenario)
    except ValueError as error:
        parser.error(str(error))
    # As after Ctrl-C, the emulator is stopped and its files are removed.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    out, setup = pathlib.Path(options.out), tables.setup(options)
    results = store.kept(out, setup)
    for scenario in rows:
        try:
            result = play(scenario, options)
        except KeyboardInterrupt:
            return 130
        except RuntimeError as error:
            print(f"infra/load/bots: {scenario.name}: {error}", file=sys.stderr)
            return 1
        print(tables.progress(result), file=sys.stderr, flush=True)
        results = store.replaced(results, result)
        store.write(out, setup, results)
    print(tables.table(results))
    print(f"{out}/report.md")
    failed = [f"{result['scenario']}: {fault}" for result in results for fault in result["faults"]]
    for fault in failed:
        print(f"FAILED {fault}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
