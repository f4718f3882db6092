// The steps from the button to an accepted order, as in API.md's "How a good client buys": one
// ticket is kept and sent again until its outcome is known. Independent of the page's layout.

import { Refusal, call, isPassing, persist, sleep } from "../common/api.js";
import { captchasAreOn, isAboutCaptcha } from "../common/captcha.js";
import { now } from "../common/clock.js";
import { attempt, begin, drop, keep } from "./attempts.js";

// How long one press of the button is retried.
const PATIENCE_MS = 120_000;

// Buys one unit, or continues an unfinished attempt. Resolves with the order's id, or throws the
// final refusal. `askCaptcha(error)` gets the refusal of the last answer and resolves with a new
// one; `told(text)` is called for each wait.
export async function buy(saleId, { askCaptcha, told }) {
  let renewed = false;
  for (;;) {
    if (!attempt(saleId)?.ticket) {
      begin(saleId);
      try {
        const { ticket, order_id } = await askForTicket(saleId, askCaptcha, told);
        keep(saleId, { stage: "sending", ticket, order_id });
      } catch (error) {
        // Nothing has been bought. After signing in again, the purchase continues without another
        // press of the button.
        if (error.slug !== "unauthenticated") drop(saleId);
        throw error;
      }
    }
    try {
      return await send(saleId, told);
    } catch (error) {
      if (!["bad-ticket", "ticket-expired"].includes(error.slug) || renewed) throw error;
      // The ticket created no order: the next round begins with a new ticket.
      renewed = true;
      drop(saleId);
    }
  }
}

const askForTicket = (saleId, askCaptcha, told) =>
  withCaptcha(
    (answer) => persist(() => whenOpen(() => call("POST", `/api/sales/${saleId}/tickets`, answer)), told, PATIENCE_MS),
    askCaptcha,
    told,
  );

// Repeats `send(answer)` with other answers of captchas until none is refused.
export async function withCaptcha(send, askCaptcha, told) {
  let wrong = null;
  let answer = captchasAreOn ? await askCaptcha(null) : {};
  for (;;) {
    try {
      return await send(answer);
    } catch (error) {
      if (!isAboutCaptcha(error)) throw error;
      wrong = error;
    }
    told("");
    answer = await askCaptcha(wrong);
  }
}

// The page's estimate of the server's clock may be slightly ahead.
async function whenOpen(action) {
  for (let tries = 0; ; tries += 1) {
    try {
      return await action();
    } catch (error) {
      const left = error.slug === "sale-not-open" ? Date.parse(error.problem.starts_at) - now() : Infinity;
      if (left > 3_000 || tries > 5) throw error;
      await sleep(Math.max(left, 100) + Math.random() * 200);
    }
  }
}

async function send(saleId, told) {
  const begun = attempt(saleId);
  // The user has just signed out in another tab.
  if (begun === null) throw new Refusal("unauthenticated");
  keep(saleId, { stage: "sending" });
  const { ticket, order_id } = begun;
  try {
    await persist(() => whenOpen(() => call("POST", `/api/sales/${saleId}/orders`, { ticket })), told, PATIENCE_MS);
  } catch (error) {
    if (error.slug === "bad-ticket" && (await exists(order_id, told))) {
      // The session has changed, but the order was created before.
    } else if (error.slug === "already-bought" && error.problem.order_id) {
      keep(saleId, { stage: "accepted", ticket: null, order_id: error.problem.order_id });
      throw error;
    } else {
      // After signing in again, or when the problem has passed, the same ticket is sent again.
      const unknown = isPassing(error) || ["unauthenticated", "internal"].includes(error.slug);
      keep(saleId, { stage: unknown ? "sending" : "held" });
      throw error;
    }
  }
  keep(saleId, { stage: "accepted", ticket: null });
  return order_id;
}

async function exists(orderId, told) {
  try {
    await persist(() => call("GET", `/api/orders/${orderId}`), told, PATIENCE_MS);
    return true;
  } catch (error) {
    if (error.slug === "not-found") return false;
    throw error;
  }
}
