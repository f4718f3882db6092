// Requests to the API, and the handling of refusals.

import { forget } from "./account.js";
import { sample } from "./clock.js";
import { date, words } from "./format.js";
import { has, t } from "./i18n.js";

const TIMEOUT_MS = 12_000;

// A problem document, or `no-answer` when there was no usable answer: then the request may or may
// not have taken effect.
export class Refusal extends Error {
  constructor(slug, problem = {}, retryAfterMs = null) {
    super(slug);
    this.slug = slug;
    this.problem = problem;
    this.retryAfterMs = retryAfterMs;
  }
}

// Temporary problems. Every request that the pages repeat is safe to repeat.
const PASSING = new Set([
  "rate-limited",
  "unavailable",
  "not-durable-yet",
  "function-failed",
  "function-timeout",
  "order-queued",
  "no-answer",
]);

export const isPassing = (error) => error instanceof Refusal && PASSING.has(error.slug);

// One request. Resolves with the body (null for none), or throws a Refusal. The mode stays "cors",
// the default. In another mode the browser would send `Origin: null` under the pages'
// Referrer-Policy, and the server would refuse the cookie, because it accepts cookies only from its
// own pages.
export async function call(method, path, body = undefined, headers = {}) {
  const sentAt = performance.now();
  let response, json;
  try {
    response = await fetch(path, {
      method,
      headers: body === undefined ? headers : { "Content-Type": "application/json", ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    const text = await response.text();
    const isJson = (response.headers.get("Content-Type") ?? "").includes("json");
    json = isJson && text !== "" ? JSON.parse(text) : null;
  } catch {
    throw new Refusal("no-answer");
  }
  if (response.ok) {
    // A list may come from the server's or the browser's cache, so the time of this answer is in
    // its header.
    const time = response.headers.get("Server-Time") ?? json?.server_time;
    if (time) sample(time, sentAt, performance.now());
    return json;
  }
  throw refusal(response, json);
}

// A part of a file that the server sends in parts: its bytes, and the path of the next part or null.
export async function part(path) {
  let response, blob, problem;
  try {
    response = await fetch(path, { signal: AbortSignal.timeout(TIMEOUT_MS) });
    blob = await response.blob();
    problem = response.ok ? null : JSON.parse(await blob.text());
  } catch {
    throw new Refusal("no-answer");
  }
  if (!response.ok) throw refusal(response, problem);
  const next = /^<([^>]+)>; rel="next"$/.exec(response.headers.get("Link") ?? "");
  return { blob, next: next && next[1] };
}

function refusal(response, problem) {
  const slug = problem?.type?.startsWith("/problems/") ? problem.type.slice("/problems/".length) : null;
  const seconds = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  const retryAfterMs = Number.isFinite(seconds) ? seconds * 1000 : null;
  if (slug === "unauthenticated") forget();
  // A proxy in between may answer without a problem document.
  return new Refusal(slug ?? (response.status >= 502 ? "unavailable" : "internal"), problem ?? {}, retryAfterMs);
}

const WAIT_FIRST_MS = 500;
const WAIT_MAX_MS = 4_000;

// Waits at least for the server's `Retry-After`, plus a random time, so that clients with the same
// answer do not retry together. Without `Retry-After` the wait doubles with each attempt.
function wait(refusal, unadvised) {
  const base = refusal.retryAfterMs ?? Math.min(WAIT_MAX_MS, WAIT_FIRST_MS * 2 ** unadvised);
  return base + Math.random() * Math.min(Math.max(base, WAIT_FIRST_MS), 2_000);
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Repeats `action` after temporary refusals for at most `patienceMs`. Calls `told(text)` for each
// wait, and with an empty text when the wait ends.
export async function persist(action, told = () => {}, patienceMs = 90_000) {
  const deadline = performance.now() + patienceMs;
  let waited = false;
  for (let unadvised = 0; ; ) {
    try {
      const answer = await action();
      if (waited) told("");
      return answer;
    } catch (error) {
      const ms = isPassing(error) ? wait(error, unadvised) : 0;
      if (error.retryAfterMs === null) unadvised += 1;
      waited = true;
      if (!isPassing(error) || performance.now() + ms > deadline) throw error;
      told(t("again", { why: explain(error), left: words(Math.ceil(ms / 1000)) }));
      await sleep(ms);
    }
  }
}

// The text that explains a refusal to the visitor.
export function explain(error) {
  if (!(error instanceof Refusal)) {
    console.error(error);
    return t("problem.internal");
  }
  const { problem, retryAfterMs, slug } = error;
  const key = has(`problem.${slug}`) ? slug : "internal";
  const detail = problem.detail && has(`detail.${problem.detail}`) ? t(`detail.${problem.detail}`) : "";
  return t(`problem.${key}`, {
    detail,
    left: words(Math.ceil((retryAfterMs ?? 1000) / 1000)),
    status: problem.order_status ? t(`status.${problem.order_status}`) : "",
    starts_at: problem.starts_at ? date(problem.starts_at) : "",
    entries_open_at: problem.entries_open_at ? date(problem.entries_open_at) : "",
    before: problem.registered_before ? t("draw.eligible", { registered_before: date(problem.registered_before) }) : "",
    ends_at: problem.ends_at ? date(problem.ends_at) : "",
    until: problem.until ? t("banned.until", { until: date(problem.until) }) : "",
  }).trim();
}
