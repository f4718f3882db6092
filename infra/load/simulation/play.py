"""Plays one scenario: accounts, emulator, sale, everybody at once, the ledger's orders, the audit."""

import asyncio
import collections
import datetime
import pathlib
import random
import tempfile
import time

from . import attacker as attackers
from . import outcomes, people
from .actor import World
from .client import Pool
from .emulator import Emulator
from .honest import Shopper
from .standins import StandIns

ADMIN_PHONE, ADMIN_PASSWORD = "+12015550142", "an operators phrase"
# Connections of the reverse proxy that the simulation stands for.
HONEST_CONNECTIONS, ATTACKER_CONNECTIONS = 256, 512
# How long entries are open, with and without a captcha; then how long the sale lasts at most, by allocation.
ENTRY_SECONDS, ENTRY_CAPTCHA_SECONDS = 15, 28
FIRST_COME_SECONDS, DRAW_SECONDS = 16, 60
BEFORE_OPENING_SECONDS = people.ARRIVAL_SECONDS + 1
INVITE_SECONDS, PAY_WITHIN_SECONDS = 12, 8
# How long payments may take after the end.
LATE_SECONDS = 5


def rfc3339(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat(timespec="milliseconds")


def milliseconds(text):
    return round(datetime.datetime.fromisoformat(text).timestamp() * 1000)


class Play:
    def __init__(self, scenario, options, folder):
        self.scenario, self.options = scenario, options
        self.stand_ins = StandIns()
        self.world = World(scenario, options.units, self.stand_ins)
        self.folder, self.attacker, self.cutoff = folder, attackers.Attacker(), 0.0
        self.honest_pool, self.attacker_pool = None, None

    def settings(self):
        return (
            {
                "TRUSTED_PROXIES": "127.0.0.1/32",
                "GATEWAY__IDLE_TIMEOUT_MS": "600000",
                "ORDERS__PAY_WITHIN_SECONDS": str(PAY_WITHIN_SECONDS),
                "LOG": "warn,flashsale::security=off",
            }
            | self.stand_ins.settings()
            | self.scenario.configuration()
        )

    async def run(self):
        await self.stand_ins.start()
        emulator = Emulator(self.options.emulator, self.folder, self.settings())
        try:
            return await self.run_on(emulator)
        finally:
            emulator.kill()
            await self.stand_ins.stop()

    async def run_on(self, emulator):
        began = time.monotonic()
        users = await self.make_accounts(emulator)
        self.connect(emulator.start())
        await self.register_later()
        admin = await self.sign_in()
        await self.open_sale(admin)
        shoppers = [
            Shopper(self.world, self.honest_pool, person, *user)
            for person, user in zip(people.honest(self.options.honest, self.options.seed), users, strict=True)
        ]
        await self.play_all(shoppers + self.attacker.accounts)
        orders = await self.recorded_orders(admin)
        self.disconnect()
        emulator.stop()
        balances, says = emulator.audit()
        result = self.result(shoppers, orders)
        if self.scenario.draw:
            result["entries"] = outcomes.entries(emulator.entries(self.world.sale_id), self.users_of_attacker())
        result["audit"] = {"balances": balances, "says": says}
        result["took_seconds"] = round(time.monotonic() - began, 1)
        result["faults"] = list(outcomes.faults(result))
        return result

    # -- accounts

    def wanted_accounts(self):
        """How many accounts the attacker has from before the announcement, and how many he makes after it."""
        most = self.options.attackers
        if self.scenario.verification:
            most = min(most, self.options.phones)
        prepared = min(self.options.prepared, most)
        return prepared, most - prepared

    async def make_accounts(self, emulator):
        """The honest shoppers' users, oldest first. The announcement is made between the old and the new accounts."""
        new = people.newcomers(self.options.honest)
        prepared, later = self.wanted_accounts()
        self.phones = people.phone_numbers(prepared + later, self.options.seed)
        emulator.add_admin(ADMIN_PHONE, ADMIN_PASSWORD)
        users = emulator.seed(self.options.honest - new)
        if self.scenario.verification:
            self.connect(emulator.start())
            await self.register(self.phones[:prepared])
            self.disconnect()
            emulator.stop()
        else:
            self.add_accounts(emulator.seed(prepared))
        await asyncio.sleep(0.05)
        self.cutoff = time.time()
        await asyncio.sleep(0.05)
        users += emulator.seed(new)
        if not self.scenario.verification:
            self.add_accounts(emulator.seed(later))
        return users

    async def register_later(self):
        if self.scenario.verification:
            await self.register(self.phones[len(self.attacker.accounts) :])

    async def register(self, phones):
        accounts = self.add_accounts([("", "")] * len(phones))
        await attackers.register(accounts, phones)

    def add_accounts(self, users):
        addresses = people.attacker_addresses()
        have = len(self.attacker.accounts)
        made = [
            attackers.Account(
                self.world,
                self.attacker_pool,
                self.attacker,
                addresses[number % len(addresses)],
                random.Random(f"{self.options.seed}/attacker/{number}"),
                *user,
            )
            for number, user in enumerate(users, have)
        ]
        self.attacker.accounts += made
        return made

    def users_of_attacker(self):
        return {account.user_id for account in self.attacker.accounts}

    # -- connections

    def connect(self, base):
        self.honest_pool, self.attacker_pool = Pool(base, HONEST_CONNECTIONS), Pool(base, ATTACKER_CONNECTIONS)
        for account in self.attacker.accounts:
            account.pool = self.attacker_pool

    def disconnect(self):
        self.honest_pool.close()
        self.attacker_pool.close()

    # -- the operator

    async def operate(self, method, path, token="", body=None):
        answer = await self.honest_pool.ask(method, path, "198.18.254.1", token, body)
        if answer.status >= 300 or answer.status == 0:
            raise RuntimeError(f"{method} {path}: {answer.status} {answer.body.decode()}")
        return answer.json()

    async def sign_in(self):
        body = {"phone": ADMIN_PHONE, "password": ADMIN_PASSWORD}
        return (await self.operate("POST", "/api/sessions", body=body))["token"]

    async def open_sale(self, admin):
        now, draw = time.time(), self.scenario.draw
        before = (ENTRY_CAPTCHA_SECONDS if self.scenario.captcha else ENTRY_SECONDS) if draw else BEFORE_OPENING_SECONDS
        # The API takes milliseconds.
        self.world.opening = round(now + before, 3)
        self.world.end = self.world.opening + (DRAW_SECONDS if draw else FIRST_COME_SECONDS)
        sale = {
            "title": self.scenario.name,
            "price": 1999,
            "stock": self.options.units,
            "starts_at": rfc3339(self.world.opening),
            "ends_at": rfc3339(self.world.end),
        }
        if draw:
            sale |= {"allocation": "draw", "entries_open_at": rfc3339(now), "invite_seconds": INVITE_SECONDS}
        if self.scenario.eligibility:
            sale["eligible_registered_before"] = rfc3339(self.cutoff)
        made = await self.operate("POST", "/api/admin/sales", admin, sale | self.scenario.sale)
        self.world.sale_id = made["sale_id"]

    async def recorded_orders(self, admin):
        orders, cursor = [], ""
        while cursor is not None:
            path = f"/api/admin/sales/{self.world.sale_id}/orders?limit=100" + (f"&cursor={cursor}" if cursor else "")
            page = await self.operate("GET", path, admin)
            orders, cursor = orders + page["orders"], page["next_cursor"]
        return orders

    # -- the sale

    async def play_all(self, actors):
        """Ends when everybody is done, when every unit is paid for, or some seconds after the sale's end."""
        tasks = [asyncio.create_task(actor.play()) for actor in actors]
        everybody = asyncio.gather(*tasks)
        over = asyncio.create_task(self.world.over.wait())
        limit = self.world.end + LATE_SECONDS - self.world.now()
        try:
            await asyncio.wait([everybody, over], timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if everybody.done():
                # Raises the error of an actor, if there was one.
                everybody.result()
        finally:
            everybody.cancel()
            over.cancel()
            await asyncio.gather(*tasks, everybody, over, return_exceptions=True)

    def result(self, shoppers, orders):
        classes, reasons = outcomes.count([(shopper.final, shopper.refusal) for shopper in shoppers])
        paid, his = outcomes.share_of(orders, self.users_of_attacker())
        accounts = self.attacker.accounts
        opening_ms = round(self.world.opening * 1000)
        sold_after_ms, sold = outcomes.sold_after_ms(orders, self.options.units, opening_ms, milliseconds)
        return {
            "scenario": self.scenario.name,
            "allocation": self.scenario.allocation,
            "defences": self.scenario.defences,
            "units": self.options.units,
            "paid": paid,
            "attacker": {
                "accounts": len(accounts),
                "units": his,
                "captchas": sum(account.captchas for account in accounts),
                "cancelled": self.attacker.cancelled,
                "orders": sum(account.orders for account in accounts),
                "ends": dict(collections.Counter(account.final or account.refusal for account in accounts)),
            },
            "honest": {"shoppers": len(shoppers), "ends": classes, "refused": reasons},
            "sold_after_ms": sold_after_ms,
            "sold": sold,
            "failures": dict(self.world.failures),
            "unavailable": dict(self.world.unavailable),
        }


def play(scenario, options):
    with tempfile.TemporaryDirectory(prefix="flashsale-bots-") as folder:
        return asyncio.run(Play(scenario, options, pathlib.Path(folder)).run())
