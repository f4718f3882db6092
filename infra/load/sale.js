// k6: plays one sale. Each shopper is one iteration of one virtual user and has its own connection. It arrives (opens the sale's
// page), counts down on the server's clock, presses within WINDOW_MS after the opening, retries as API.md asks of every client,
// and follows its order.
//
// The moments of arriving and pressing are fixed before the first request, so a slow answer delays nobody's press, and a late
// press counts as waiting: latencies are measured from the planned press. k6's clock has whole milliseconds; they are rounded up.
//
// Each shopper writes one line of JSON; infra/load/report.py describes it. local-emulator/examples/shoppers.rs is a second generator
// with the same plan and the same lines.
//
// Environment: BASES (addresses, separated by commas), SALE, USERS (CSV of `users seed`), SHOPPERS, WINDOW_MS.
import http from "k6/http";
import exec from "k6/execution";
import { sleep } from "k6";
import { SharedArray } from "k6/data";

const shoppers = Number(__ENV.SHOPPERS);
const windowMs = Number(__ENV.WINDOW_MS || 1000);
const bases = __ENV.BASES.split(",");
const salePath = `/api/sales/${__ENV.SALE}`;
const tokens = new SharedArray("tokens", () =>
  open(__ENV.USERS).trim().split("\n").slice(1, shoppers + 1).map((line) => line.split(",")[2]));

// The last shopper arrives this long before the opening. Who has no answer this long after pressing gives up.
const QUIET_MS = 2000, PATIENCE_MS = 60000;
// The gateway closes a connection that has been idle for 30 seconds (gateway.idle_timeout_ms), so nobody arrives earlier.
const ARRIVALS_MAX_MS = 26000;
const REQUEST_TIMEOUT = "10s";

export const options = {
  scenarios: { sale: { executor: "per-vu-iterations", vus: shoppers, iterations: 1, maxDuration: "10m" } },
  systemTags: [],
};

// A number from 0 to 1 that depends on the shopper alone (mulberry32); the other generator computes the same.
function chance(shopper) {
  let t = (shopper + 1) * 0x6d2b79f5 | 0;
  t = Math.imul(t ^ (t >>> 15), t | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
}

export function setup() {
  const sent = Date.now();
  const answer = http.get(bases[0] + salePath);
  if (answer.status !== 200) exec.test.abort(`the sale's page answers ${answer.status || answer.error}`);
  const sale = answer.json();
  const now = Date.now();
  const opens = Date.parse(sale.starts_at) - Date.parse(sale.server_time) + (sent + now) / 2;
  const arrivals = Math.min(opens - QUIET_MS - now, ARRIVALS_MAX_MS);
  if (arrivals < shoppers) {
    exec.test.abort(`only ${Math.round(arrivals)} ms are left for ${shoppers} shoppers to arrive before the sale opens`);
  }
  return { opens, begun: opens - QUIET_MS - arrivals, arrivals };
}

export default function ({ opens, begun, arrivals }) {
  const shopper = exec.vu.idInTest - 1;
  const base = bases[shopper % bases.length];
  const headers = { Authorization: `Bearer ${tokens[shopper]}`, "Content-Type": "application/json" };
  const pressed = chance(shopper) * windowMs;
  const record = {
    shopper, pressed_ms: pressed, final_ms: null, outcome: null, order_id: null, status: null,
    seen_ms: null, recorded_ms: null, answers: [],
  };
  const clock = () => Date.now() + 1 - opens;
  const until = (at) => sleep(Math.max(0, at - (Date.now() - opens)) / 1000);

  // One request, repeated after a timeout, a lost connection, 429 and 503, as API.md says.
  function ask(what, method, path, body) {
    for (;;) {
      const answer = http.request(method, base + path, body, { headers, timeout: REQUEST_TIMEOUT });
      let json = null;
      try { json = answer.json(); } catch { /* an answer without JSON counts by its status */ }
      const slug = answer.status >= 400 && json && json.type ? json.type.replace("/problems/", "") : null;
      const label = answer.status === 0 ? "no-answer" : slug || String(answer.status);
      const at = clock();
      record.answers.push([what, at, answer.status, label]);
      if (![0, 429, 503].includes(answer.status) || at > pressed + PATIENCE_MS) return { status: answer.status, label, json, at };
      sleep(Number(answer.headers["Retry-After"]) || 1);
    }
  }

  until(begun - opens + (arrivals * shopper) / shoppers);
  ask("page", "GET", salePath, null);
  until(pressed);
  buy();
  console.log(JSON.stringify(record));

  function buy() {
    let ticket = ask("ticket", "POST", `${salePath}/tickets`, null);
    while (ticket.label === "sale-not-open" && ticket.at < pressed + PATIENCE_MS) {
      sleep(0.1);
      ticket = ask("ticket", "POST", `${salePath}/tickets`, null);
    }
    record.final_ms = ticket.at;
    record.outcome = ticket.label;
    if (ticket.status !== 201) return;
    const order = ask("order", "POST", `${salePath}/orders`, JSON.stringify({ ticket: ticket.json.ticket }));
    record.final_ms = order.at;
    record.outcome = order.status === 202 ? "ordered" : order.label;
    if (order.status !== 202) return;
    record.order_id = order.json.order_id;
    for (;;) {
      const seen = ask("order-status", "GET", `/api/orders/${record.order_id}`, null);
      record.status = seen.json && seen.json.status ? seen.json.status : seen.label;
      if (record.status !== "queued") {
        record.seen_ms = seen.at;
        if (record.status === "confirmed") record.recorded_ms = Date.parse(seen.json.updated_at) + 1 - opens;
        return;
      }
      if (seen.at > pressed + PATIENCE_MS) return;
      sleep(0.5);
    }
  }
}
