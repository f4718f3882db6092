"""The judge of infra/load/report.py on made-up results: python3 -m unittest discover -s infra/load -p 'test_*.py'."""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

REPORT = pathlib.Path(__file__).with_name("report.py")


def shopper(number, won):
    answers = [
        ["page", -3000.0, 200, "200"],
        ["ticket", 110.0, 201, "201"] if won else ["ticket", 110.0, 409, "sold-out"],
    ]
    if won:
        answers += [["order", 120.0, 202, "202"], ["order-status", 640.0, 200, "200"]]
    return {
        "shopper": number,
        "pressed_ms": 100.5,
        "final_ms": 120.0 if won else 110.0,
        "outcome": "ordered" if won else "sold-out",
        "order_id": f"order-{number}" if won else None,
        "status": "confirmed" if won else None,
        "seen_ms": 640.0 if won else None,
        "recorded_ms": 130.0 if won else None,
        "answers": answers,
    }


class Judge(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.work = pathlib.Path(directory.name)
        self.shoppers = [shopper(number, number < 3) for number in range(10)]
        self.facts = {
            "shoppers": 10,
            "units": 3,
            "window": 1000,
            "generator": 0,
            "audit": 0,
            "when": "now",
            "processor": "some",
            "servers": "some",
            "emulator": "some",
            "generator_name": "some",
        }
        self.audit = "stock 3 = available 0 + reserved 0 + sold 3\nthe books of 1 sales balance"

    def report(self):
        (self.work / "results").write_text("".join(f"{json.dumps(one)}\n" for one in self.shoppers))
        (self.work / "facts").write_text("".join(f"{name}={value}\n" for name, value in self.facts.items()))
        (self.work / "audit").write_text(self.audit)
        return subprocess.run(
            [sys.executable, REPORT, "write", self.work, self.work], capture_output=True, text=True, check=False
        )

    def refuses(self, reason):
        ran = self.report()
        self.assertEqual(ran.returncode, 1, ran.stdout + ran.stderr)
        self.assertIn(reason, ran.stdout)
        self.assertIn(reason, (self.work / "report.md").read_text())

    def test_a_good_run_passes_and_its_report_is_complete(self):
        ran = self.report()
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        text = (self.work / "report.md").read_text()
        self.assertIn("| final answer, order accepted | 3 | 20 ms | 20 ms | 20 ms | 20 ms |", text)
        self.assertIn("| final answer, refused | 7 | 9.5 ms |", text)
        self.assertIn("| errors | 0 |", text)
        self.assertIn("<svg", (self.work / "report.html").read_text())
        xml.etree.ElementTree.parse(self.work / "picture.svg")

    def test_books_that_do_not_balance(self):
        self.facts["audit"], self.audit = 1, "oversold"
        self.refuses("the books do not balance")

    def test_an_order_that_the_ledger_does_not_have(self):
        self.audit = self.audit.replace("sold 3", "sold 2")
        self.refuses("the ledger has 2 orders, and shoppers 3")

    def test_more_orders_than_units(self):
        self.shoppers[5] = shopper(5, True)
        self.refuses("4 orders were accepted for 3 units")

    def test_a_unit_that_nobody_got(self):
        self.shoppers[0] = shopper(0, False)
        self.refuses("only 2 orders were accepted for 3 units")

    def test_one_order_for_two_shoppers(self):
        self.shoppers[0]["order_id"] = self.shoppers[1]["order_id"]
        self.refuses("two shoppers have the same order")

    def test_an_order_that_stayed_queued(self):
        self.shoppers[0]["status"] = "queued"
        self.refuses("an accepted order stayed queued")

    def test_an_answer_of_the_server_that_is_an_error(self):
        self.shoppers[9]["answers"].insert(1, ["ticket", 105.0, 503, "unavailable"])
        self.refuses("ticket: unavailable (1 times)")

    def test_an_answer_that_did_not_come(self):
        self.shoppers[9]["answers"].insert(1, ["ticket", 10105.0, 0, "no-answer"])
        self.refuses("ticket: no-answer")

    def test_a_refusal_that_no_sale_should_give(self):
        self.shoppers[9]["outcome"] = "unauthenticated"
        self.refuses("final answer: unauthenticated")

    def test_a_shopper_without_a_result(self):
        self.shoppers.pop()
        self.refuses("9 of 10 shoppers have a result")

    def test_a_shopper_who_was_not_answered(self):
        self.shoppers[9] |= {"final_ms": None, "outcome": None}
        self.refuses("final answer: None")

    def test_a_generator_that_failed(self):
        self.facts["generator"], self.shoppers = 99, []
        self.refuses("the generator exited with 99")


if __name__ == "__main__":
    unittest.main()
