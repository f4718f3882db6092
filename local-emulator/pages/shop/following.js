// Asks where the user's entry stands, as often as the server says. Goes on in the background, where
// browsers slow timers down, and asks at once when the visitor or the network comes back.

import { call, explain, isPassing } from "../common/api.js";
import { entryOf } from "./entries.js";

// Pause when nothing is expected to change.
const SETTLED_MS = 15_000;
const FAILED_FIRST_MS = 1_000;
const FAILED_MAX_MS = 30_000;
// The page may become visible and go online at the same moment.
const NEAREST_MS = 500;

// Calls `heard(view)` for each answer, with null if there is no entry, until it returns false;
// `failed(error, text)` for each failure, where an empty text means that it does not pass. Returns
// `ask()`, which asks at once and resolves when that has happened; nothing is asked before.
export function follow(saleId, heard, failed) {
  let [timer, asking, askedAt, failures] = [null, null, null, 0];

  const once = async () => {
    askedAt = performance.now();
    const entry = entryOf(saleId)?.entry;
    try {
      const view = await call("GET", `/api/sales/${saleId}/entries/current`, undefined, entry ? { Entry: entry } : {});
      failures = 0;
      if (heard(view) === false) return null;
      const settled = ["bought", "passed", "sold_out"].includes(view.state);
      return settled ? Math.max(view.poll_after_ms, SETTLED_MS) : view.poll_after_ms;
    } catch (error) {
      if (error.slug === "not-found") {
        // The user may have entered in the meantime.
        if (entryOf(saleId)?.entry !== entry) return 0;
        heard(null);
        return null;
      }
      if (!isPassing(error)) {
        failed(error, "");
        return null;
      }
      failed(error, explain(error));
      const base = error.retryAfterMs ?? Math.min(FAILED_MAX_MS, FAILED_FIRST_MS * 2 ** failures);
      failures += 1;
      return base * (1 + Math.random());
    }
  };

  const ask = () => {
    clearTimeout(timer);
    asking ??= once().then((pause) => {
      asking = null;
      if (pause !== null) timer = setTimeout(ask, pause);
    });
    return asking;
  };

  const comeBack = () => {
    if (askedAt === null || document.visibilityState !== "visible") return;
    if (performance.now() - askedAt > NEAREST_MS) ask();
  };
  document.addEventListener("visibilitychange", comeBack);
  addEventListener("online", comeBack);
  return ask;
}
