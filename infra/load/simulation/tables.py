"""The table of the scenarios, and the assumptions behind it, as Markdown."""

import hashlib
import math
import os
import time

from . import people, play

# Defaults of captchas.work in shared/config.default.toml.
WORK_ROUNDS, WORK_ATTEMPTS_MAX = 5000, 500
HEAD = ("sale", "defences", "accounts of the attacker", "units he gets", "shoppers wrongly refused", "all units sold after")


def percent(part, whole):
    share = 100 * part / whole if whole else 0
    if 0 < share < 0.1:
        return "< 0.1 %"
    return f"{share:.1f} %" if 0 < share < 9.95 else f"{share:.0f} %"


def sold_after(result):
    ms = result["sold_after_ms"]
    if ms is None:
        return f"{result['sold']:,} of {result['units']:,} at the end"
    return f"{ms / 1000:.1f} s" if ms >= 1000 else f"{ms:.0f} ms"


def share_refused(honest):
    return percent(sum(honest["refused"].values()), honest["shoppers"])


def refused(honest):
    reasons = ", ".join(f"{name} {number}" for name, number in sorted(honest["refused"].items()))
    return share_refused(honest) + (f" ({reasons})" if reasons else "")


def row(result):
    his = result["attacker"]
    return (
        result["allocation"],
        result["defences"],
        f"{his['accounts']:,}",
        f"{percent(his['units'], result['units'])} ({his['units']:,})",
        refused(result["honest"]),
        sold_after(result),
    )


def table(results):
    rows = [HEAD, ("---", "---", "---:", "---:", "---", "---:"), *map(row, results)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def progress(result):
    """One line for a scenario that has been played."""
    share = percent(result["attacker"]["units"], result["units"])
    return f"{result['scenario']}: {share} to the attacker, books balance: {result['audit']['balances']}, {result['took_seconds']} s"


def attempt_seconds():
    """Processor time of one attempt at a proof of work, on this machine."""
    began, times = time.process_time(), 20
    for number in range(times):
        hashlib.pbkdf2_hmac("sha256", number.to_bytes(20, "big"), b"salt" * 4, WORK_ROUNDS)
    return (time.process_time() - began) / times


def setup(options):
    return {
        "honest": options.honest,
        "attackers": options.attackers,
        "units": options.units,
        "phones": options.phones,
        "prepared": options.prepared,
        "seed": options.seed,
        "cores": os.cpu_count(),
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "work_seconds": round(attempt_seconds() * (1 + WORK_ATTEMPTS_MAX) / 2, 2),
    }


def drawn_share(known):
    """Of the units of a draw: his share on average, and the lowest and highest share in 95 of 100 draws."""
    buyers = known["honest"] * (1 - people.NO_SHOWS) * (1 - people.NON_PAYERS)
    mean = known["attackers"] / (known["attackers"] + buyers)
    around = 1.96 * math.sqrt(mean * (1 - mean) / known["units"])
    return mean, max(mean - around, 0), min(mean + around, 1)


def assumptions(known):
    """What the figures depend on."""
    yield (
        f"{known['honest']:,} honest shoppers, {known['units']:,} units, one unit each. They react to the opening after a median of "
        f"{people.REACTION[0]} s and to an invitation after {people.INVITED_REACTION[0]:.0f} s, need {people.CAPTCHA[0]:.0f} s for a "
        f"captcha and {people.PAYMENT[0]:.0f} s to pay (lognormal), and each message takes {people.LATENCY_MS[0]} to "
        f"{people.LATENCY_MS[1]} ms each way. {people.SHARED_ADDRESS:.0%} share {people.CARRIER_ADDRESSES} addresses of one carrier "
        f"network."
    )
    yield (
        f"They fail {people.CAPTCHA_FAILS:.0%} of captchas and give up after {people.CAPTCHA_TRIES} failures, and after "
        f"{people.RETRIES} answers of 429 or 503 to one request. {people.PATIENT:.0%} ask again every 2 to 5 s after "
        f"`sold-out`. {people.NO_SHOWS:.0%} do not come when they are invited, {people.NON_PAYERS:.0%} do not pay. "
        f"{people.NEWCOMERS:.0%} registered after the announcement. Their phones are verified."
    )
    yield (
        f"One attacker: {known['attackers']:,} accounts, {people.ATTACKER_ADDRESSES} addresses in {people.ATTACKER_NETWORKS} "
        f"networks (/24), {people.ATTACKER_LATENCY_MS} ms away. All accounts ask when the sale opens, and after `sold-out` each asks "
        f"again every second. He buys solved captchas, before the opening, and never gets a wrong one. He keeps to every "
        f"`Retry-After`."
    )
    yield (
        "In a sale by first come he cancels 30 % of his first orders after 2 to 5 s, as a reseller does, and tries to buy each unit "
        "again with six accounts at once. In a draw he keeps what he gets, because a returned unit goes to the next in line, "
        "except in the row that says so. A unit counts for whoever has paid for it at the end."
    )
    mean, low, high = drawn_share(known)
    yield (
        f"Places in a draw are chance, also for the same `--seed`: with all accounts he gets {mean:.0%} of the units on average, a "
        f"little more than his share of the accounts, because some shoppers do not come or do not pay; in 95 of 100 draws {low:.0%} "
        f"to {high:.0%}."
    )
    yield (
        f"Verified phones: he has {known['phones']:,} numbers and registers each from his addresses through the API. Eligibility: "
        f"only {known['prepared']:,} of his accounts are older than the announcement (`eligible_registered_before`). Somebody who "
        f"prepares more numbers and accounts beforehand gains in proportion to them."
    )
    yield (
        "Limits and bans are those of the default configuration; where they are not named they are off, except those of text messages. "
        "The captcha is of the kind `provider`, and stands also for `image`, which this simulation can't read."
    )
    yield (
        f"A captcha of the kind `work` costs {known['work_seconds']:.2f} s of one processor's time on average, for people and "
        f"programs alike: {known['work_seconds'] * known['attackers']:,.0f} s for {known['attackers']:,} accounts."
    )
    yield (
        f"Times are compressed: invitations last {play.INVITE_SECONDS} s, unpaid orders {play.PAY_WITHIN_SECONDS} s. The emulator and "
        f"the simulation shared {known['cores']} cores. Wrongly refused: the last answer was a refusal other than "
        f"`sold-out`, `sale-ended` or `not-invited`."
    )


def markdown(known, results):
    title = f"# One attacker among {known['honest']:,} shoppers, {known['units']:,} units"
    balance = "The books of every sale balance." if not any(result["faults"] for result in results) else "FAILED."
    lines = [title, "", f"{known['when']}, seed {known['seed']}. {balance}", "", "![Share of the attacker, by defence](picture.svg)"]
    lines += ["", table(results), "", "## Assumptions", "", *(f"- {line}" for line in assumptions(known))]
    return "\n".join(lines) + "\n"
