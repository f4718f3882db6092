// The panel of a sale by draw. Shows what draw.js found out; knows no requests.

import { countdown } from "../common/clock.js";
import { button, el, link, say } from "../common/dom.js";
import { date, number, words } from "../common/format.js";
import { t } from "../common/i18n.js";

// For each phase: title, text, label and time of the countdown, and what is announced of it. Phases
// are those of draw.js.
const PHASES = {
  looking: { title: "draw.looking", text: null },
  closed: { title: "draw.closed", text: "draw.closed-text", clock: ["draw.opens-in", "entries_open_at"] },
  open: { title: "draw.open", text: "draw.open-text", clock: ["draw.draw-in", "starts_at"], heard: "draw.announce" },
  late: { title: "draw.late", text: "draw.late-text", clock: ["sale.ends-in", "ends_at"] },
  over: { title: "draw.over", text: "draw.over-text" },
  away: { title: "draw.over", text: "draw.away-text" },
  entered: { title: "draw.entered", text: "draw.entered-text", next: "draw.entered-next", clock: ["draw.draw-in", "starts_at"] },
  drawing: { title: "draw.drawing", text: "draw.drawing-text" },
  waiting: { title: "draw.waiting", text: "draw.waiting-text", next: "draw.waiting-next", clock: ["sale.ends-in", "ends_at"] },
  invited: { title: "draw.invited", text: "draw.invited-text", clock: ["draw.invited-left", "invited_until"], heard: "draw.invited-announce" },
  bought: { title: "draw.bought", text: null },
  passed: { title: "draw.not-this-time", text: "draw.passed-text" },
  sold_out: { title: "draw.not-this-time", text: "draw.sold-out-text" },
};

// Phases in which the visitor may wish to be called.
const CALLABLE = ["entered", "drawing", "waiting"];
// Phases in which the visitor may still enter.
const BEFORE_ENTRY = ["closed", "open", "late"];

// `onMoment()` is called at the end of a countdown, `onCallMe()` when the visitor wishes to be called.
export function panel({ onMoment, onCallMe }) {
  const title = el("h2", { class: "h4", id: "draw-title", tabindex: "-1" });
  const text = el("p", { class: "mb-2" });
  const eligible = el("p", { class: "mb-2" });
  const ahead = el("p", { class: "mb-2 fs-5", id: "ahead" });
  const label = el("span");
  const clock = el("p", { class: "countdown large mb-2", role: "timer" });
  const time = el("div", {}, label, clock);
  const next = el("p", { class: "mb-2" });
  const order = el("p", { class: "mb-2" });
  const callMe = button("outline-primary", t("draw.call-me"), onCallMe, { id: "call-me" });
  const called = el("p", { class: "small mb-0", role: "status" });
  const calls = el("div", { class: "mb-2" }, callMe, called);
  const trouble = el("p", { class: "small mb-2", role: "status" });
  const result = el("div", { id: "proof" });
  const element = el(
    "section",
    { class: "card card-body mb-3", id: "draw", "aria-labelledby": "draw-title" },
    title, text, eligible, ahead, time, next, order, calls, trouble, result,
  );

  let [stopClock, shownClock] = [() => {}, ""];
  const paintClock = ({ clock: wanted, heard = null }, times) => {
    const until = wanted && times[wanted[1]];
    time.hidden = !until;
    // Not started again while it runs, or marks would be announced twice or not at all.
    const shown = until ? `${wanted[0]} ${until}` : "";
    if (shown === shownClock) return;
    stopClock();
    shownClock = shown;
    if (!until) return;
    say(label, t(wanted[0]));
    stopClock = countdown(clock, until, onMoment, heard);
  };

  return {
    element,
    focus: () => title.focus(),
    title: () => title.textContent,
    // `view` is the last answer about the entry, or null.
    paint(phase, sale, view) {
      const wanted = PHASES[phase];
      const values = {
        from: date(sale.entries_open_at),
        to: date(sale.starts_at),
        stock: number(sale.stock),
        beacon: sale.beacon ?? "",
        left: words(sale.invite_seconds),
      };
      element.dataset.phase = phase;
      say(title, t(wanted.title));
      const waitsForBeacon = phase === "drawing" && sale.beacon !== undefined;
      text.hidden = wanted.text === null;
      if (wanted.text) say(text, t(waitsForBeacon ? "draw.beacon-text" : wanted.text, values));
      const limit = sale.eligible_registered_before;
      eligible.hidden = !limit || !BEFORE_ENTRY.includes(phase);
      if (limit) say(eligible, t("draw.eligible", { registered_before: date(limit) }));
      ahead.hidden = phase !== "waiting";
      if (!ahead.hidden) say(ahead, view.ahead === 0 ? t("draw.next") : t("draw.ahead", { ahead: number(view.ahead) }));
      paintClock(wanted, { ...sale, ...view });
      next.hidden = !wanted.next;
      if (wanted.next) say(next, t(wanted.next, values));
      order.hidden = phase !== "bought";
      if (!order.hidden) order.replaceChildren(link(`/orders/${view.order_id}`, t("order.show"), "primary"));
      calls.hidden = !CALLABLE.includes(phase);
    },
    // Says how the visitor will be called.
    called(text) {
      callMe.hidden = true;
      say(called, text);
    },
    trouble: (text) => say(trouble, text),
    result: (...children) => result.replaceChildren(...children),
  };
}

// How the draw works and what is promised, for everybody to check afterwards.
export const background = (sale) =>
  el(
    "details",
    { class: "small mb-3", id: "draw-how" },
    el("summary", {}, t("draw.how")),
    el("p", { class: "mt-2" }, t("draw.how-places")),
    el("p", {}, t("draw.how-seed"), " ", el("code", {}, sale.seed_hash)),
    el("p", {}, sale.beacon === undefined ? t("draw.how-no-beacon") : t("draw.how-beacon", { beacon: sale.beacon })),
  );
