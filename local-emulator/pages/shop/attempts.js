// This tab's unfinished purchases, so that a reload or the back button continues one instead of
// beginning another.
//
// An attempt goes through these stages:
//   asking    a ticket was asked for; asking again is harmless
//   sending   there is a ticket: only it is sent, repeatedly, until its outcome is known
//   held      the ticket was refused for now (sold out): it is sent when the visitor tries again
//   accepted  the order exists

import { current } from "../common/account.js";
import { tab } from "../common/store.js";

const PREFIX = "attempt:";

// The attempt of the signed-in user; another user's attempt is ignored.
export function attempt(saleId) {
  const kept = tab.get(PREFIX + saleId);
  return kept && kept.user_id === current()?.user_id ? kept : null;
}

// Whether there is an attempt, even if no user is signed in.
export const wasBegun = (saleId) => tab.get(PREFIX + saleId) !== null;

export const begin = (saleId) => tab.set(PREFIX + saleId, { user_id: current()?.user_id, stage: "asking" });

// Works after the session has ended too: the attempt keeps its user.
export const keep = (saleId, values) => tab.set(PREFIX + saleId, { ...tab.get(PREFIX + saleId), ...values });

export const drop = (saleId) => tab.remove(PREFIX + saleId);

// The order has ended without a unit, so a new purchase may begin. Another order's attempt is left
// alone.
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
