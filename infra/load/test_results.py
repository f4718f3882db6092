"""Tests of results.py: python3 -m unittest discover -s infra/load"""
import json
import tempfile
import unittest
from pathlib import Path

import results
from results import Measure

SPEED = Measure("x.speed", "speed", "/s", "hello", at_least=0.75)
COST = Measure("x.cost", "cost", "µs", "small", at_most=1.1)
MEMORY = Measure("x.memory", "memory", "MiB", below=64)
MEASURES = [SPEED, COST, MEMORY]


def rounds(*pairs):
    return [{"baseline": baseline, "product": product} for baseline, product in pairs]


class Figures(unittest.TestCase):
    def test_the_ratio_is_the_median_of_the_rounds(self):
        # The machine became slower in the third round, for both sides.
        self.assertEqual(results.ratio(rounds((100, 80), (100, 90), (10, 8)), "product"), 0.8)

    def test_a_side_may_have_a_baseline_of_its_own(self):
        each = {"baseline": 10, "product": 11, "before_baseline": 20, "before": 30}
        self.assertEqual(results.ratio([each], "product"), 1.1)
        self.assertEqual(results.ratio([each], "before"), 1.5)

    def test_units(self):
        shown = [results.figure(*each) for each in [(12345.6, "/s"), (0.1234, "ms"), (1234.5, "ms"), (4096, "bytes"), (21.26, "MiB")]]
        self.assertEqual(shown, ["12,346/s", "0.123 ms", "1,234 ms", "4,096 bytes", "21.3 MiB"])


class Tables(unittest.TestCase):
    def test_a_table_names_missed_targets(self):
        measured = {"x.speed": rounds((100, 70)), "x.cost": rounds((10, 10.5)), "x.memory": [{"product": 65.0}]}
        lines = results.table(MEASURES, measured, with_before=False).splitlines()
        self.assertEqual(lines[2], "| speed | 70/s | 0.70 | hello: 100/s | ≥ 0.75 (missed) |")
        self.assertEqual(lines[3], "| cost | 10.5 µs | 1.05 | small: 10 µs | ≤ 1.1 |")
        self.assertEqual(lines[4], "| memory | 65 MiB |  |  | < 64 MiB (missed) |")

    def test_a_second_binary_has_columns_of_its_own(self):
        each = {"baseline": 100, "product": 90, "before": 50, "product_p99_ms": 1.0, "before_p99_ms": 2.0, "baseline_p99_ms": 0.5}
        lines = results.table(MEASURES, {"x.speed": [each], "x.cost": []}, with_before=True).splitlines()
        self.assertEqual(lines[0], "| measure | before | ratio | product | ratio | baseline | target |")
        self.assertEqual(lines[2], "| speed | 50/s (p99 2 ms) | 0.50 | 90/s (p99 1 ms) | 0.90 | hello: 100/s (p99 0.5 ms) | ≥ 0.75 |")
        self.assertEqual(len(lines), 3)


class Files(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "results.json"

    def saved(self, measured):
        results.save(self.path, measured, {"rounds": 1})
        return results.load(self.path)

    def test_a_run_keeps_what_it_did_not_measure(self):
        self.saved({"x.speed": rounds((100, 80)), "x.cost": []})
        kept = self.saved({"x.speed": rounds((100, 90)), "y.speed": rounds((1, 1))})
        self.assertEqual(sorted(kept), ["x.speed", "y.speed"])
        self.assertEqual(kept["x.speed"], {"setup": {"rounds": 1}, "rounds": rounds((100, 90))})
        json.loads(self.path.read_text())

    def test_ratios_are_compared_where_there_is_a_baseline(self):
        earlier = self.saved({"x.speed": rounds((100, 80)), "x.cost": rounds((10, 10)), "x.memory": [{"product": 20.0}]})
        # A machine of half the speed, and a little more memory.
        now = {"x.speed": rounds((50, 40)), "x.cost": rounds((20, 20)), "x.memory": [{"product": 21.0}]}
        text, worse = results.compare(MEASURES, earlier, now)
        self.assertEqual(worse, [])
        self.assertEqual(text.splitlines()[2], "| speed | ratio | 0.80 | 0.80 | +0% |")
        self.assertEqual(text.splitlines()[4], "| memory | figure | 20 MiB | 21 MiB | +5% |")

    def test_what_became_worse_is_named(self):
        earlier = self.saved({"x.speed": rounds((100, 80)), "x.cost": rounds((10, 10)), "x.memory": [{"product": 20.0}]})
        now = {"x.speed": rounds((100, 60)), "x.cost": rounds((10, 12)), "x.memory": [{"product": 30.0}]}
        self.assertEqual(results.compare(MEASURES, earlier, now)[1], ["speed", "cost", "memory"])
        better = {"x.speed": rounds((100, 99)), "x.cost": rounds((10, 5)), "x.memory": [{"product": 2.0}]}
        self.assertEqual(results.compare(MEASURES, earlier, better)[1], [])

    def test_only_what_both_runs_measured_is_compared(self):
        earlier = self.saved({"x.speed": rounds((100, 80))})
        text, worse = results.compare(MEASURES, earlier, {"x.cost": rounds((10, 10)), "x.speed": []})
        self.assertEqual((len(text.splitlines()), worse), (2, []))


if __name__ == "__main__":
    unittest.main()
