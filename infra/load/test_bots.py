"""Tests of simulation/: python3 -m unittest discover -s infra/load"""
import asyncio
import ipaddress
import pathlib
import tempfile
import types
import unittest
import xml.etree.ElementTree

from simulation import attacker, client, drawing, outcomes, people, play, scenarios, standins, store, tables
from simulation.actor import Actor, World, kind_of

OPTIONS = types.SimpleNamespace(honest=5000, attackers=1000, units=500, phones=100, prepared=20, seed=1)


def order(user_id, created, status="paid", updated=None):
    return {"user_id": user_id, "created_at": created, "status": status, "updated_at": updated or created}


def result(**changed):
    made = {
        "scenario": "draw",
        "allocation": "draw",
        "defences": "captcha",
        "units": 500,
        "paid": 500,
        "attacker": {"accounts": 1000, "units": 85},
        "honest": {"shoppers": 5000, "ends": {}, "refused": {}},
        "sold_after_ms": 39_627,
        "sold": 500,
        "failures": {},
        "audit": {"balances": True, "says": "the books of 1 sales balance"},
        "faults": [],
    }
    return made | changed


class Rows(unittest.TestCase):
    def test_every_scenario_has_a_name_of_its_own(self):
        names = [scenario.name for scenario in scenarios.SCENARIOS]
        self.assertEqual(len(set(names)), len(names))

    def test_scenarios_are_chosen_by_name_and_keep_their_order(self):
        found = scenarios.chosen(["draw", "first-come"])
        self.assertEqual([scenario.name for scenario in found], ["first-come", "draw"])
        self.assertEqual(scenarios.chosen([]), list(scenarios.SCENARIOS))
        with self.assertRaisesRegex(ValueError, "no scenario lottery; there are draw"):
            scenarios.chosen(["lottery"])

    def test_defences_are_settings(self):
        nothing, everything = (scenarios.chosen([name])[0].configuration() for name in ("first-come", "draw-all"))
        self.assertEqual((nothing["CAPTCHA"], nothing["PHONE_VERIFICATION"]), ("off", "off"))
        self.assertEqual(nothing["LIMITS__TICKET__LIMIT"], "1000000")
        self.assertEqual(everything, {"CAPTCHA": "provider", "PHONE_VERIFICATION": "webhook"})

    def test_verification_and_preparation_bound_the_accounts(self):
        def accounts(name, **changed):
            options = types.SimpleNamespace(**vars(OPTIONS) | changed)
            return play.Play(scenarios.chosen([name])[0], options, None).wanted_accounts()

        self.assertEqual(accounts("draw"), (20, 980))
        self.assertEqual(accounts("draw-verification"), (20, 80))
        self.assertEqual(accounts("draw-verification", phones=7), (7, 0))


class People(unittest.TestCase):
    def test_the_same_seed_gives_the_same_people(self):
        self.assertEqual(people.honest(50, 1), people.honest(50, 1))
        self.assertNotEqual(people.honest(50, 1), people.honest(50, 2))
        self.assertEqual(people.phone_numbers(5, 1), people.phone_numbers(5, 1))

    def test_honest_shoppers_have_many_addresses_and_the_attacker_few(self):
        honest = [person.address for person in people.honest(5000, 1)]
        his = people.attacker_addresses()
        self.assertGreater(len(set(honest)), 3900)
        self.assertEqual(len(set(his)), 20)
        self.assertEqual(len({address.rsplit(".", 1)[0] for address in his}), 4)
        self.assertFalse(set(honest) & set(his))
        reserved = ipaddress.ip_network("198.18.0.0/15")
        self.assertTrue(all(ipaddress.ip_address(address) in reserved for address in honest + his))

    def test_newcomers_are_the_last(self):
        found = [person.is_newcomer for person in people.honest(100, 1)]
        self.assertEqual(found, [False] * 95 + [True] * 5)

    def test_reactions_have_the_stated_median(self):
        reactions = sorted(person.reaction for person in people.honest(5001, 1))
        self.assertAlmostEqual(reactions[2500], people.REACTION[0], delta=0.03)


class Outcomes(unittest.TestCase):
    def test_ends_of_shoppers(self):
        for final, refusal, wanted in [
            ("bought", "", "bought"),
            ("sold-out", "sold-out", "too late"),
            # The sale was over while the shopper waited, or while the shopper was asked to come again.
            ("", "", "too late"),
            ("", "sold-out", "too late"),
            ("", "rate-limited", "refused"),
            ("rate-limited", "rate-limited", "refused"),
            ("banned", "banned", "refused"),
            ("captcha-wrong", "captcha-wrong", "refused"),
            ("not-eligible", "not-eligible", "refused"),
            ("no-answer", "no-answer", "refused"),
            ("no-show", "", "own choice"),
            ("passed", "", "own choice"),
        ]:
            self.assertEqual(outcomes.classify(final, refusal), wanted, (final, refusal))

    def test_refusals_are_counted_by_reason(self):
        classes, reasons = outcomes.count([("bought", ""), ("banned", "banned"), ("", "banned"), ("sold-out", "sold-out")])
        self.assertEqual(classes, {"bought": 1, "refused": 2, "too late": 1})
        self.assertEqual(reasons, {"banned": 2})

    def test_only_paid_units_count(self):
        orders = [order("a", 1), order("b", 2), order("a", 3, "cancelled"), order("a", 4, "confirmed")]
        self.assertEqual(outcomes.share_of(orders, {"a"}), (2, 1))

    def test_a_sale_is_sold_when_all_units_have_an_order_at_once(self):
        orders = [order("a", 110, "cancelled", 120), order("b", 130), order("c", 150), order("d", 140, "rejected")]
        self.assertEqual(outcomes.sold_after_ms(orders, 2, 100, int), (50, 2))
        self.assertEqual(outcomes.sold_after_ms(orders, 3, 100, int), (None, 2))
        # A unit that is cancelled and bought again within one millisecond is one unit.
        again = [order("a", 110, "cancelled", 130), order("b", 130)]
        self.assertEqual(outcomes.sold_after_ms(again, 2, 100, int), (None, 1))

    def test_late_entries_spoil_a_draw(self):
        rows = [{"user_id": str(n), "arrival": "", "invited_as": ""} for n in range(100)]
        rows[0] |= {"invited_as": "0"}
        rows[1] |= {"arrival": "7", "invited_as": "1"}
        found = outcomes.entries(rows, {"0", "2"})
        self.assertEqual(found["all"], {"entries": 100, "late": 1, "invited": 2})
        self.assertEqual(found["attacker"], {"entries": 2, "late": 0, "invited": 1})
        self.assertEqual(list(outcomes.faults(result(entries=found))), [])
        rows[2] |= {"arrival": "8"}
        late = result(entries=outcomes.entries(rows, set()))
        self.assertIn("2 entries came after the draw", "".join(outcomes.faults(late)))

    def test_faults(self):
        self.assertEqual(list(outcomes.faults(result())), [])
        red = {"balances": False, "says": "oversold"}
        bad = result(audit=red, paid=501, failures={"/api/orders: 500 internal": 2})
        wanted = ["the books do not balance: oversold", "501 units were paid, 500 were for sale", "/api/orders: 500 internal (2 times)"]
        self.assertEqual(list(outcomes.faults(bad)), wanted)


class Answers(unittest.TestCase):
    def test_a_problem_has_a_name_and_a_pause(self):
        answer = client.Answer(429, b"HTTP/1.1 429 X\r\nretry-after: 7", b'{"type":"/problems/rate-limited"}')
        self.assertEqual((answer.slug, answer.retry_after), ("rate-limited", 7))
        self.assertEqual((client.Answer(0).slug, client.Answer(201).slug), ("no-answer", ""))

    def test_failures_are_counted_without_ids(self):
        world = World(None, 1, None)
        path = "/api/orders/01a228d0-a163-75dc-8fb9-6e8479d9f252/payment"
        world.note(path, client.Answer(500, body=b'{"type":"/problems/internal"}'))
        world.note(path, client.Answer(503, body=b'{"type":"/problems/unavailable"}'))
        world.note(path, client.Answer(409, body=b'{"type":"/problems/order-final"}'))
        self.assertEqual(dict(world.failures), {"/api/orders/…/payment: 500 internal": 1})
        self.assertEqual(dict(world.unavailable), {"/api/orders/…/payment: 503 unavailable": 1})
        self.assertEqual(kind_of("/api/captchas"), "/api/captchas")

    def test_a_connection_reads_an_answer_in_pieces(self):
        async def read():
            connection = client.Connection()
            connection.connection_made(types.SimpleNamespace(write=lambda _: None))
            asking = asyncio.create_task(connection.send(b""))
            await asyncio.sleep(0)
            for byte in b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}":
                connection.data_received(bytes([byte]))
            return await asking

        answer = asyncio.run(read())
        self.assertEqual((answer.status, answer.json()), (201, {}))

    def test_a_request_is_repeated_until_its_refusal_does_not_pass(self):
        answers = [client.Answer(0), client.Answer(200)]

        async def ask(*_):
            return answers.pop(0)

        actor = Actor(World(None, 1, None), types.SimpleNamespace(ask=ask), "198.18.0.1", 0, people.person(0, False, 1).rng)
        actor.retries = 1
        self.assertEqual(asyncio.run(actor.persist("GET", "/api/sales")).status, 200)
        self.assertEqual((actor.refusal, answers), ("", []))

    def test_the_provider_knows_its_tokens(self):
        stand_ins = standins.StandIns()
        for is_right in (True, False):
            body = f"secret=s&response={standins.provider_token(is_right, 'id')}".encode()
            self.assertEqual(stand_ins.answer("/siteverify", body)["success"], is_right)
        stand_ins.answer("/messages", b'{"phone":"+8613800000000","code":"042137"}')
        self.assertEqual(stand_ins.codes, {"+8613800000000": "042137"})


class Rebuying(unittest.TestCase):
    def test_a_cancelled_order_wakes_the_accounts_that_wait_longest(self):
        async def wait():
            shared = attacker.Attacker()
            gone = await shared.pause(0)
            waiting = [asyncio.create_task(shared.pause(5)) for _ in range(attacker.REBUYERS + 1)]
            await asyncio.sleep(0)
            shared.wake()
            await asyncio.sleep(0.01)
            done = [task.done() and task.result() for task in waiting]
            waiting[-1].cancel()
            return gone, done

        self.assertEqual(asyncio.run(wait()), (False, [True] * attacker.REBUYERS + [False]))


class Tables(unittest.TestCase):
    def test_a_row(self):
        refused = {"shoppers": 5000, "ends": {}, "refused": {"not-eligible": 250, "captcha-wrong": 3}}
        lines = tables.table([result(honest=refused), result(sold_after_ms=None, sold=498)]).splitlines()
        self.assertEqual(
            lines[2], "| draw | captcha | 1,000 | 17 % (85) | 5.1 % (captcha-wrong 3, not-eligible 250) | 39.6 s |"
        )
        self.assertTrue(lines[3].endswith("| 0 % | 498 of 500 at the end |"), lines[3])

    def test_shares(self):
        shown = [tables.percent(part, 5000) for part in (0, 1, 20, 500, 4990, 5000)]
        self.assertEqual(shown, ["0 %", "< 0.1 %", "0.4 %", "10 %", "100 %", "100 %"])

    def test_the_share_of_a_draw_is_that_of_the_accounts_that_buy(self):
        mean, low, high = tables.drawn_share(vars(OPTIONS))
        self.assertAlmostEqual(mean, 1000 / (1000 + 5000 * 0.92 * 0.97))
        self.assertLess(low, 0.16)
        self.assertGreater(high, 0.20)

    def test_the_report_states_its_assumptions(self):
        text = tables.markdown(tables.setup(OPTIONS), [result()])
        for stated in ("1,000 accounts", "20 addresses", "100 numbers", "only 20 of his accounts", "5,000 honest shoppers"):
            self.assertIn(stated, text)
        self.assertNotIn("FAILED", text)
        self.assertIn("FAILED", tables.markdown(tables.setup(OPTIONS), [result(faults=["oversold"])]))

    def test_the_picture_is_xml_with_a_bar_for_each_scenario(self):
        drawn = drawing.picture([result(allocation="first come"), result(), result(attacker={"accounts": 1, "units": 0})])
        root = xml.etree.ElementTree.fromstring(drawn)
        bars = [node for node in root.iter("{http://www.w3.org/2000/svg}rect") if node.get("height") == str(drawing.BAR)]
        self.assertEqual(len(bars), 3)


class Files(unittest.TestCase):
    def test_a_run_keeps_rows_that_it_did_not_play_if_the_numbers_are_the_same(self):
        setup = tables.setup(OPTIONS)
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "report"
            self.assertEqual(store.kept(out, setup), [])
            store.write(out, setup, [result(), result(scenario="draw-all", paid=499)])
            self.assertEqual(store.kept(out, setup | {"units": 7}), [])
            rows = store.replaced(store.kept(out, setup | {"when": "later"}), result(scenario="draw-all"))
            rows = store.replaced(rows, result(scenario="first-come"))
            names = [(row["scenario"], row["paid"]) for row in rows]
            self.assertEqual(names, [("first-come", 500), ("draw", 500), ("draw-all", 500)])
            store.write(out, setup, rows)
            self.assertIn("<svg", (out / "picture.svg").read_text())
            self.assertIn("| draw | captcha |", (out / "report.md").read_text())


if __name__ == "__main__":
    unittest.main()
