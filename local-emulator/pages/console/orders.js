// The orders of a sale: with signals about their buyers, searched, as CSV, and cancelled with a
// reason.

import { call, part } from "../common/api.js";
import { announce, button, el } from "../common/dom.js";
import { date, money, number } from "../common/format.js";
import { field } from "../common/form.js";
import { t } from "../common/i18n.js";
import { section } from "./section.js";

const STATUSES = ["confirmed", "paid", "cancelled", "expired", "rejected"];

const seconds = (ms) => (ms === null ? "–" : `${number(ms / 1000)} s`);

function age(ms) {
  if (ms >= 172_800_000) return t("console.days", { days: number(Math.floor(ms / 86_400_000)) });
  return ms >= 7_200_000 ? t("console.hours", { hours: number(Math.floor(ms / 3_600_000)) }) : seconds(ms);
}

// What the search field holds: an order's id, a network or an address, else a phone number.
function searched(text) {
  if (/^[0-9a-f]{8}-[0-9a-f-]{27}$/.test(text)) return { order_id: text };
  if (/^[0-9a-f.:]+\/\d+$/i.test(text) || /^\d+\.\d+\.\d+\.\d+$/.test(text) || /^[0-9a-f]*:[0-9a-f:.]*$/i.test(text)) return { address_prefix: text };
  return text === "" ? {} : { phone: text };
}

// Asks for the reason of a cancellation. Resolves with null when the operator goes back.
function askReason() {
  return new Promise((resolve) => {
    const reason = field("cancellation-reason", t("console.cancel-reason"), { required: true, maxlength: 500 }, { hint: t("console.cancel-hint") });
    const dialog = el("dialog", { "aria-labelledby": "cancel-question" });
    const send = () => {
      if (reason.control.value.trim() === "") {
        reason.refuse(t("console.cancel-reason-missing"));
        reason.control.focus();
      } else dialog.close("yes");
    };
    dialog.append(
      el(
        "form",
        {
          novalidate: true,
          onsubmit: (event) => {
            event.preventDefault();
            send();
          },
        },
        el("p", { id: "cancel-question" }, t("console.cancel-question")),
        reason.element,
        el(
          "div",
          { class: "d-flex gap-2 flex-wrap" },
          el("button", { type: "submit", class: "btn btn-danger" }, t("console.cancel-yes")),
          button("outline-secondary", t("no"), () => dialog.close("")),
        ),
      ),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes" ? reason.control.value.trim() : null);
    });
    document.body.append(dialog);
    dialog.showModal();
    reason.control.focus();
  });
}

// `acted()` is called after each cancellation.
export function orders(acted) {
  const { element, body, status, act } = section("orders", t("console.orders"), el("p", {}, t("console.orders-lead")));
  let sale = null;

  const choice = el(
    "select",
    { class: "form-select" },
    el("option", { value: "" }, t("console.any-status")),
    ...STATUSES.map((one) => el("option", { value: one }, t(`status.${one}`))),
  );
  const only = field("orders-status", t("order.status"), {}, { input: choice });
  const search = field("orders-search", t("console.search"), { maxlength: 60 }, { hint: t("console.search-hint") });
  const rows = el("tbody", {});
  const more = el("div", {});
  const heads = ["order.id", "order.status", "order.made", "console.network", "console.account-age", "console.ticket-after", "console.order-after"].map((key) =>
    el("th", { scope: "col" }, t(key)),
  );
  const table = el(
    "div",
    { class: "table-responsive", tabindex: 0, role: "region", "aria-label": t("console.orders") },
    el("table", { class: "table table-sm" }, el("thead", {}, el("tr", {}, ...heads, el("td", {}))), rows),
  );

  const query = (cursor) => new URLSearchParams({ ...(choice.value && { status: choice.value }), ...searched(search.control.value.trim()), ...(cursor && { cursor }) });

  const cancelled = async (order, line) => {
    const reason = await askReason();
    if (reason === null) return;
    const changed = await act(() => call("POST", `/api/admin/orders/${order.order_id}/cancellation`, { reason }));
    if (changed === undefined) return;
    line.replaceWith(row({ ...order, ...changed }));
    announce(t("console.cancelled"));
    acted();
  };
  const row = (order) => {
    const why = order.cancellation_reason ?? (order.reason && t(`reason.${order.reason}`));
    const line = el(
      "tr",
      { "data-order": order.order_id },
      el("td", {}, el("code", {}, order.order_id), el("div", { class: "small" }, money(order.price, order.currency))),
      el("td", {}, t(`status.${order.status}`), why ? el("div", { class: "small" }, why) : null),
      el("td", {}, date(order.created_at)),
      el("td", {}, order.address_prefix === null ? "–" : el("code", {}, order.address_prefix)),
      el("td", {}, age(order.account_age_ms)),
      el("td", {}, seconds(order.ticket_after_ms)),
      el("td", {}, seconds(order.order_after_ms)),
    );
    const cancel =
      order.status === "confirmed" &&
      button("sm btn-outline-danger", t("console.cancel"), () => cancelled(order, line), { "aria-label": t("console.cancel-of", { order: order.order_id }) });
    line.append(el("td", {}, cancel || null));
    return line;
  };

  // A search that finds little ends its page early: read on until there is something to show.
  const load = async (cursor) => {
    more.replaceChildren();
    let page;
    do {
      const next = page?.next_cursor ?? cursor;
      page = await act(() => call("GET", `/api/admin/sales/${sale.sale_id}/orders?${query(next)}`));
      if (page === undefined) return;
    } while (page.orders.length === 0 && page.next_cursor !== null);
    if (cursor === null) rows.replaceChildren();
    rows.append(...page.orders.map(row));
    if (rows.childElementCount === 0) more.replaceChildren(el("p", {}, t("console.orders-none")));
    if (page.next_cursor !== null) more.replaceChildren(button("outline-secondary", t("orders.more"), () => load(page.next_cursor)));
  };

  // The parts one after the other are one file.
  const save = async () => {
    const parts = [];
    let path = `/api/admin/sales/${sale.sale_id}/orders.csv?${query(null)}&sort=oldest`;
    while (path !== null) {
      const got = await act(() => part(path));
      if (got === undefined) return;
      parts.push(got.blob);
      path = got.next;
      if (path !== null) status.replaceChildren(t("console.csv-parts", { parts: number(parts.length) }));
    }
    status.replaceChildren();
    const href = URL.createObjectURL(new Blob(parts, { type: "text/csv" }));
    const anchor = el("a", { href, download: `orders-${sale.sale_id}.csv` });
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(href), 60_000);
    announce(t("console.csv-saved"));
  };

  const tools = el(
    "form",
    {
      class: "row g-2 align-items-end",
      novalidate: true,
      onsubmit: (event) => {
        event.preventDefault();
        load(null);
      },
    },
    el("div", { class: "col-sm-4" }, only.element),
    el("div", { class: "col-sm-8" }, search.element),
    el(
      "div",
      { class: "d-flex gap-2 flex-wrap mb-3" },
      el("button", { type: "submit", class: "btn btn-primary" }, t("console.search-do")),
      button("outline-secondary", t("console.csv"), save),
    ),
  );

  // Shows a sale's orders.
  const look = async (chosen) => {
    sale = chosen;
    body.replaceChildren(el("p", {}, t("console.orders-of", { title: sale.title })), tools, table, more);
    await load(null);
    element.scrollIntoView({ block: "nearest" });
  };
  return { element, look };
}
