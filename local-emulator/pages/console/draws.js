// Sales by draw: their fields in the form that creates a sale, and how far a draw has come.

import { call, explain, sleep } from "../common/api.js";
import { announce, el, say } from "../common/dom.js";
import { date, number } from "../common/format.js";
import { field, form } from "../common/form.js";
import { t } from "../common/i18n.js";

const REFRESH_MS = 3_000;

// The fields that a sale by draw needs. `read()` gives their values for the request.
export function drawFields(entriesOpenAt, time) {
  const options = ["first_come", "draw"].map((value) => el("option", { value }, t(`allocation.${value}`)));
  const allocation = field("allocation", t("console.field-allocation"), {}, { input: el("select", { class: "form-select" }, ...options) });
  const opens = field("entries_open_at", t("console.field-entries"), { type: "datetime-local", step: 1, value: entriesOpenAt });
  const invite = field("invite_seconds", t("console.field-invite"), { type: "number", min: 10, max: 86_400, step: 1, value: 120 });
  const beacon = field("beacon", t("console.field-beacon"), { maxlength: 200 }, { hint: t("console.field-beacon-hint") });
  const eligible = field("eligible_registered_before", t("console.field-eligible"), { type: "datetime-local", step: 1 }, { hint: t("console.field-eligible-hint") });
  const ofDraw = el("div", { hidden: true }, opens.element, invite.element, beacon.element);
  const isDraw = () => allocation.control.value === "draw";
  allocation.control.addEventListener("change", () => (ofDraw.hidden = !isDraw()));
  return {
    elements: [eligible.element, allocation.element, ofDraw],
    fields: { allocation, entries_open_at: opens, invite_seconds: invite, beacon, eligible_registered_before: eligible },
    read: () => ({
      allocation: allocation.control.value,
      eligible_registered_before: time(eligible),
      ...(isDraw() && {
        entries_open_at: time(opens),
        invite_seconds: invite.control.value === "" ? null : Number(invite.control.value),
        beacon: beacon.control.value.trim() || null,
      }),
    }),
  };
}

// The progress of a sale's draw, renewed while it is shown, and the field for its beacon's value.
export function drawPanel(sale) {
  const line = el("p", { class: "small mb-1" });
  const state = el("p", { class: "small mb-1" });
  const beacon = el("div", {});
  const element = el("div", { class: "mt-2", "data-draw": sale.sale_id }, line, state, beacon);
  const address = `/api/admin/sales/${sale.sale_id}`;

  const value = field(`beacon-${sale.sale_id}`, t("console.beacon-value"), { maxlength: 200, required: true });
  const send = async () => {
    await call("PUT", `${address}/beacon`, { value: value.control.value.trim() });
    announce(t("console.beacon-stored"));
    await look();
  };
  const entry = form([value.element], t("console.beacon-send"), send, (error) => (error.problem.field === "value" ? value : null));

  const paint = ({ sale: { draw: terms }, draw }) => {
    const names = ["in_time", "late", "invited", "open_invitations", "free"];
    say(line, t("console.draw-line", Object.fromEntries(names.map((name) => [name, number(draw[name])]))));
    const waits = terms.beacon !== undefined && draw.beacon_value === undefined;
    if (draw.closed_at === null) say(state, t("console.draw-open", { from: date(terms.entries_open_at) }));
    else if (waits) say(state, t("console.draw-waits", { beacon: terms.beacon }));
    else say(state, t("console.draw-drawn", { at: date(draw.closed_at) }));
    const asks = waits && draw.closed_at !== null;
    if (asks !== beacon.hasChildNodes()) beacon.replaceChildren(...(asks ? [entry] : []));
  };
  // After a failure the last figures stay, and the next round tries again.
  const look = () => call("GET", `${address}/stats`).then(paint, (error) => say(state, explain(error)));

  const refresh = async () => {
    for (;;) {
      await look();
      do await sleep(REFRESH_MS);
      while (document.visibilityState !== "visible");
      if (!element.isConnected || sale.state === "ended") return;
    }
  };
  refresh();
  return element;
}
