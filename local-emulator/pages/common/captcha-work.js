// A captcha that the browser answers by itself: a proof of work by ALTCHA's protocol, found by
// ALTCHA's own workers.

import { el, say } from "./dom.js";
import { t } from "./i18n.js";

const WORKER = new URL("../vendor/altcha/pbkdf2.js", import.meta.url);
const WORKERS_MAX = 8;
// A captcha's time to live ends sooner.
const PATIENCE_MS = 300_000;

export function work() {
  let stop = () => {};
  let answer = null;
  const status = el("p", { class: "mb-0", role: "status", id: "captcha-status" });
  return {
    element: status,
    show({ parameters, signature }) {
      const search = new AbortController();
      stop = () => search.abort();
      say(status, t("captcha.working"));
      answer = solve(parameters, search.signal).then((solution) => btoa(JSON.stringify({ challenge: { parameters, signature }, solution })));
      answer.then(
        () => search.signal.aborted || say(status, t("captcha.worked")),
        () => search.signal.aborted || say(status, t("captcha.failed")),
      );
    },
    stop: () => stop(),
    isBegun: () => false,
    isAnswered: () => true,
    // Without a solution the server refuses, and the page draws another.
    answer: () => answer.catch(() => ""),
    refuse: (text) => say(status, `${text} ${t("captcha.working")}`),
    focus() {},
  };
}

// The workers share the numbers among them; the first to find the key ends all.
function solve(parameters, signal) {
  const count = Math.max(1, Math.min(WORKERS_MAX, navigator.hardwareConcurrency || 2));
  const workers = [];
  const found = new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason));
    for (let first = 0; first < count; first += 1) {
      const worker = new Worker(WORKER);
      workers.push(worker);
      worker.addEventListener("error", (event) => reject(event));
      worker.addEventListener("message", ({ data }) => (data === null || data.error ? reject(data?.error) : resolve(data)));
      worker.postMessage({ type: "work", challenge: { parameters }, counterMode: "uint32", counterStart: first, counterStep: count, timeout: PATIENCE_MS });
    }
  });
  return found.finally(() => workers.forEach((worker) => worker.terminate()));
}
