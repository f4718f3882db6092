// The live section: shows a stream of per-second figures as numbers, charts and bars.

import { alertBox, el, say } from "../common/dom.js";
import { number } from "../common/format.js";
import { t } from "../common/i18n.js";
import { chart } from "./chart.js";
import { section } from "./section.js";
import { units } from "./units.js";

// Shows two minutes.
const SECONDS_MAX = 120;
const AGAIN_MS = 3_000;

const OUTCOMES = [
  ["accepted", t("console.accepted"), "#1a7f37"],
  ["too_late", t("console.too-late"), "#bf8700"],
  ["limited", t("console.limited"), "#8250df"],
  ["refused", t("console.refused"), "#57606a"],
  ["failed", t("console.failed"), "#cf222e"],
];

const sum = (second, outcome) => Object.values(second.requests).reduce((all, kind) => all + kind[outcome], 0);
const ms = (value) => (value === null ? "–" : `${number(Math.round(value * 10) / 10)} ms`);

function figure(list, label) {
  const value = el("dd", {}, "–");
  list.append(el("div", {}, el("dt", {}, label), value));
  return (text) => say(value, text);
}

// Calls `heard(second)` for every second.
export function live(heard) {
  const { element, body, status } = section("figures", t("console.live"));
  const list = el("dl", { class: "figures" });
  const show = {
    orders: figure(list, t("console.orders-per-second")),
    tickets: figure(list, t("console.tickets-per-second")),
    entries: figure(list, t("console.entries-per-second")),
    median: figure(list, t("console.p50")),
    late: figure(list, t("console.p99")),
    waiting: figure(list, t("console.queue-waiting")),
    parked: figure(list, t("console.queue-parked")),
  };
  const requests = chart(t("console.requests"), OUTCOMES.map(([, label, stroke]) => ({ label, stroke })));
  const latency = chart(t("console.latency"), [
    { label: t("console.p50"), stroke: "#0969da" },
    { label: t("console.p99"), stroke: "#cf222e" },
  ]);
  const flow = chart(t("console.flow"), [
    { label: t("console.orders-per-second"), stroke: "#1a7f37" },
    { label: t("console.entries-per-second"), stroke: "#0969da" },
    { label: t("console.queue-waiting"), stroke: "#8250df" },
  ]);
  const bars = units();
  body.append(list, bars.element, requests.element, latency.element, flow.element);

  const seconds = [];
  const take = (second) => {
    seconds.push(second);
    if (seconds.length > SECONDS_MAX) seconds.shift();
    const orders = second.requests.orders.accepted;
    show.orders(number(orders));
    show.tickets(number(second.requests.tickets.accepted));
    show.entries(number(second.requests.entries.accepted));
    show.median(ms(second.p50_ms));
    show.late(ms(second.p99_ms));
    show.waiting(second.queue_waiting === null ? "–" : number(second.queue_waiting));
    show.parked(second.queue_parked === null ? "–" : number(second.queue_parked));
    bars.paint(second.sales);
    const times = seconds.map((second) => Date.parse(second.at) / 1000);
    requests.paint(times, OUTCOMES.map(([outcome]) => seconds.map((second) => sum(second, outcome))));
    latency.paint(times, [seconds.map((second) => second.p50_ms), seconds.map((second) => second.p99_ms)]);
    const accepted = (kind) => seconds.map((second) => second.requests[kind].accepted);
    flow.paint(times, [accepted("orders"), accepted("entries"), seconds.map((second) => second.queue_waiting)]);
    heard(second);
  };

  // The browser reconnects by itself after a lost connection, but not after a refusal.
  const connect = () => {
    const source = new EventSource("/console/live");
    source.addEventListener("second", (event) => {
      status.replaceChildren();
      take(JSON.parse(event.data));
    });
    source.addEventListener("error", () => {
      status.replaceChildren(alertBox("warning", t("console.not-live")));
      if (source.readyState === EventSource.CLOSED) setTimeout(connect, AGAIN_MS);
    });
    addEventListener("pagehide", () => source.close(), { once: true });
  };
  connect();
  return element;
}
