"""What counts: how it ended for each shopper, who has the units, and when they were gone. No I/O."""

import collections

# Ends without a unit that the rules of a sale explain.
TOO_LATE = {"sold-out", "sold_out", "sale-ended", "not-invited", "waiting", "entries-not-open", "sale-not-open"}
# Ends that a shopper has chosen or caused; a ticket expires when its invitation was not used in time.
OWN = {"no-show", "not-paid", "paid-too-late", "passed", "ticket-expired"}
# An order that was in the ledger and did not stay.
ENDED = {"cancelled", "expired"}

# More late entries than this spoil the shares of a draw, because shoppers enter in time.
LATE_SHARE = 0.01


def classify(final, refusal):
    """`final` is how it ended, empty if the sale was over first; `refusal` is the last refusal, empty after a success."""
    if final in ("bought", "already-bought"):
        return "bought"
    if final in OWN:
        return "own choice"
    last = final or refusal
    if last in TOO_LATE or not last:
        return "too late"
    return "refused"


def count(shoppers):
    """How many shoppers ended how, and the reasons of those who were refused."""
    classes = collections.Counter(classify(final, refusal) for final, refusal in shoppers)
    reasons = collections.Counter(
        final or refusal for final, refusal in shoppers if classify(final, refusal) == "refused"
    )
    return dict(classes), dict(reasons)


def share_of(orders, users):
    """Paid units, and those of them that belong to `users`."""
    paid = [order for order in orders if order["status"] == "paid"]
    return len(paid), sum(order["user_id"] in users for order in paid)


def sold_after_ms(orders, units, opening_ms, parse):
    """Milliseconds from the opening until every unit had an order, None if that never was so, and the most that had one at a time.

    `parse` makes milliseconds of a text.
    """
    changes = []
    for order in orders:
        if order["status"] != "rejected":
            changes.append((parse(order["created_at"]), 1))
            if order["status"] in ENDED:
                changes.append((parse(order["updated_at"]), -1))
    held = most = 0
    for moment, change in sorted(changes):
        held += change
        most = max(most, held)
        if held >= units:
            return moment - opening_ms, most
    return None, most


def entries(rows, users):
    """What became of the entries of a draw, of everybody and of `users`."""

    def counts(some):
        late, invited = (sum(bool(row[name]) for row in some) for name in ("arrival", "invited_as"))
        return {"entries": len(some), "late": late, "invited": invited}

    return {"all": counts(rows), "attacker": counts([row for row in rows if row["user_id"] in users])}


def faults(result):
    """Every reason for which a scenario has failed."""
    if not result["audit"]["balances"]:
        yield f"the books do not balance: {result['audit']['says']}"
    if result["paid"] > result["units"]:
        yield f"{result['paid']} units were paid, {result['units']} were for sale"
    if "entries" in result and result["entries"]["all"]["late"] > LATE_SHARE * result["entries"]["all"]["entries"]:
        yield f"{result['entries']['all']['late']} entries came after the draw: this machine is too slow for so many shoppers"
    for failure, times in sorted(result["failures"].items()):
        yield f"{failure} ({times} times)"
