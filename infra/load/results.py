"""The results of infra/bench: medians, the table, and the file that a later run compares itself with."""
import json
import os
import statistics

# Sides that are measured in turns. `before` is there with BEFORE=path.
SIDES = ("baseline", "product", "before")
# Larger changes of a ratio count as changes.
TOLERANCE = 0.1


class Measure:
    """One line of the table.

    `at_least` and `at_most` bound the ratio of product and baseline; `below` bounds the product's own figure.
    """

    def __init__(self, key, title, unit, baseline=None, at_least=None, at_most=None, below=None):
        self.key, self.title, self.unit, self.baseline = key, title, unit, baseline
        self.at_least, self.at_most, self.below = at_least, at_most, below

    def target(self):
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        if self.below is not None:
            return f"< {figure(self.below, self.unit)}"
        return ""

    def is_met(self, side, rounds):
        """Whether a side meets the target; None without a target."""
        if self.below is not None:
            return median(rounds, side) < self.below
        own = ratio(rounds, side)
        if self.at_least is not None:
            return own >= self.at_least
        if self.at_most is not None:
            return own <= self.at_most
        return None


def figure(value, unit):
    if unit == "/s":
        return f"{value:,.0f}/s"
    text = f"{value:,.0f}" if value >= 1_000 or unit == "bytes" else f"{value:.3g}"
    return f"{text} {unit}"


def median(rounds, side):
    return statistics.median(each[side] for each in rounds)


def ratio(rounds, side):
    """The median of the rounds' ratios: the two sides of a round were measured one right after the other."""
    own = "before_baseline" if side == "before" and "before_baseline" in rounds[0] else "baseline"
    if own not in rounds[0]:
        return None
    return statistics.median(each[side] / each[own] for each in rounds)


def cell(rounds, side, unit):
    text = figure(median(rounds, side), unit)
    if f"{side}_p99_ms" in rounds[0]:
        text += f" (p99 {figure(median(rounds, side + '_p99_ms'), 'ms')})"
    return text


def row(measure, rounds, sides):
    cells = [measure.title]
    for side in sides:
        cells.append(cell(rounds, side, measure.unit))
        own = ratio(rounds, side)
        cells.append("" if own is None else f"{own:.2f}")
    if "baseline" in rounds[0]:
        cells.append(f"{measure.baseline}: {cell(rounds, 'baseline', measure.unit)}")
    else:
        cells.append("")
    target = measure.target()
    if measure.is_met("product", rounds) is False:
        target += " (missed)"
    return cells + [target]


def table(measures, results, with_before):
    """A Markdown table of what was measured, in the order of `measures`."""
    sides = ["before", "product"] if with_before else ["product"]
    heads = ["measure"]
    for side in sides:
        heads += [side, "ratio"]
    heads += ["baseline", "target"]
    rows = [heads, ["---"] + ["---:"] * (2 * len(sides)) + ["---", "---"]]
    rows += [row(measure, results[measure.key], sides) for measure in measures if results.get(measure.key)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def save(path, results, setup):
    """Writes the rounds. Measures of an earlier run that this one did not repeat are kept."""
    kept = load(path) if os.path.exists(path) else {}
    kept.update({key: {"setup": setup, "rounds": rounds} for key, rounds in results.items() if rounds})
    with open(path, "w") as out:
        json.dump(kept, out, indent=1, sort_keys=True)
        out.write("\n")


def load(path):
    with open(path) as text:
        return json.load(text)


def compare(measures, earlier, results):
    """A Markdown table of the earlier and these results, and the titles of what became worse.

    What has a baseline is compared by its ratio, because the machine may be faster or slower than it was.
    """
    rows = [["measure", "compared", "earlier", "now", "change"], ["---", "---", "---:", "---:", "---:"]]
    worse = []
    for measure in measures:
        then, now = earlier.get(measure.key), results.get(measure.key)
        if not then or not now:
            continue
        rounds = then["rounds"]
        if measure.baseline and ratio(rounds, "product") is not None:
            compared, old, new = "ratio", ratio(rounds, "product"), ratio(now, "product")
            shown = f"{old:.2f}", f"{new:.2f}"
        else:
            compared, old, new = "figure", median(rounds, "product"), median(now, "product")
            shown = figure(old, measure.unit), figure(new, measure.unit)
        change = new / old - 1 if old else 0.0
        more_is_better = measure.unit == "/s"
        if (change < -TOLERANCE) if more_is_better else (change > TOLERANCE):
            worse.append(measure.title)
        rows.append([measure.title, compared, *shown, f"{change:+.0%}"])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows), worse
