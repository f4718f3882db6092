"""The files of a run. They are written after each scenario; a later run with the same numbers replaces the rows that it plays."""

import json

from . import drawing, scenarios, tables

# What two runs must have in common for their rows to stand in one table.
NUMBERS = ("honest", "attackers", "units", "phones", "prepared", "seed", "cores")


def kept(out, setup):
    """The rows of an earlier run in the same folder, if it had the same numbers."""
    path = out / "results.json"
    if not path.exists():
        return []
    earlier = json.loads(path.read_text())
    is_same = all(earlier["setup"][name] == setup[name] for name in NUMBERS)
    return earlier["scenarios"] if is_same else []


def replaced(results, result):
    """The rows with a new one, in the order of the table."""
    by_name = {each["scenario"]: each for each in results} | {result["scenario"]: result}
    return [by_name[scenario.name] for scenario in scenarios.SCENARIOS if scenario.name in by_name]


def write(out, setup, results):
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps({"setup": setup, "scenarios": results}, indent=1, ensure_ascii=False) + "\n")
    (out / "picture.svg").write_text(drawing.picture(results))
    (out / "report.md").write_text(tables.markdown(setup, results))
