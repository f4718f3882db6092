// Entering a draw, and the entries that this browser knows, so that a reload, another tab or a later
// visit comes back to the same view. Independent of the page's layout.

import { current } from "../common/account.js";
import { call, persist } from "../common/api.js";
import { now } from "../common/clock.js";
import { local, tab } from "../common/store.js";
import { withCaptcha } from "./buying.js";

const ENTRY = "entry:";
const ASKING = "entering:";
// How long one press of the button is retried.
const PATIENCE_MS = 120_000;
// How long an entry is kept after its sale: its result may be looked at until then.
const KEPT_MS = 30 * 86_400_000;

const mine = (kept) => (kept && kept.user_id === current()?.user_id ? kept : null);

// { entry, entered_at, seed_hash, told } or null. `seed_hash` is the commitment that the sale showed
// when the user entered; `told` is the end of the last invitation that the visitor was called for.
// Another user's entry is ignored.
export const entryOf = (saleId) => mine(local.get(ENTRY + saleId));

export function note(sale, values) {
  const { user_id } = current() ?? {};
  if (!user_id) return;
  local.set(ENTRY + sale.sale_id, { ...entryOf(sale.sale_id), ...values, user_id, ends_at: sale.ends_at });
}

// Whether this tab was entering when it was reloaded, left or signed out.
export const isEntering = (saleId) => mine(tab.get(ASKING + saleId)) !== null;

export const stopEntering = (saleId) => tab.remove(ASKING + saleId);

// Enters, or throws the final refusal. Entering again gives the same entry, so every request is safe
// to repeat. `askCaptcha(error)` and `told(text)` are as in buying.js.
export async function enter(sale, { askCaptcha, told }) {
  const { sale_id } = sale;
  tab.set(ASKING + sale_id, { user_id: current()?.user_id });
  try {
    const send = (answer) => persist(() => call("POST", `/api/sales/${sale_id}/entries`, answer), told, PATIENCE_MS);
    const { entry, entered_at } = await withCaptcha(send, askCaptcha, told);
    forgetOld();
    note(sale, { entry, entered_at, seed_hash: sale.seed_hash });
    stopEntering(sale_id);
  } catch (error) {
    // After signing in again, the page continues without another press of the button.
    if (error.slug !== "unauthenticated") stopEntering(sale_id);
    throw error;
  }
}

function forgetOld() {
  for (const key of local.keys().filter((key) => key.startsWith(ENTRY))) {
    if (Date.parse(local.get(key)?.ends_at) + KEPT_MS < now()) local.remove(key);
  }
}
