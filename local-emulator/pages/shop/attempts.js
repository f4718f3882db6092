// What this tab has begun to buy, so that a reload or the back button takes it up again instead of beginning another.
//
// An attempt goes through these stages:
//   asking    a ticket was asked for; asking again is harmless
//   sending   there is a ticket: it alone may be sent, however often, until its fate is known
//   held      the ticket was refused for now (sold out): it is sent when the visitor tries again
//   accepted  the order exists

import { current } from "../common/account.js";
import { tab } from "../common/store.js";

const PREFIX = "attempt:";

// The attempt of the user who is signed in; somebody else's is none.
export function attempt(saleId) {
  const kept = tab.get(PREFIX + saleId);
  return kept && kept.user_id === current()?.user_id ? kept : null;
}

// Whether there is one at all, also when nobody is signed in at the moment.
export const wasBegun = (saleId) => tab.get(PREFIX + saleId) !== null;

export const begin = (saleId) => tab.set(PREFIX + saleId, { user_id: current()?.user_id, stage: "asking" });

// Also after the session has ended: whose it is stays as it was.
export const keep = (saleId, values) => tab.set(PREFIX + saleId, { ...tab.get(PREFIX + saleId), ...values });

export const drop = (saleId) => tab.remove(PREFIX + saleId);

// The order has ended without a unit: buying begins anew. Of another attempt than this one nothing is known.
export function dropOrder({ sale_id, order_id }) {
  if (attempt(sale_id)?.order_id === order_id) drop(sale_id);
}

// The ids of orders that were accepted in this tab.
export const acceptedOrders = () =>
  tab
    .keys()
    .filter((key) => key.startsWith(PREFIX))
    .map((key) => attempt(key.slice(PREFIX.length)))
    .filter((kept) => kept?.stage === "accepted")
    .map((kept) => kept.order_id);
