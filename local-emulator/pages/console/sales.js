// Sales: create, schedule, open and close them, and check their books.

import { call } from "../common/api.js";
import { alertBox, announce, button, confirm, el } from "../common/dom.js";
import { date, money, number } from "../common/format.js";
import { field, form } from "../common/form.js";
import { t } from "../common/i18n.js";
import { now } from "../common/clock.js";
import { drawFields, drawPanel } from "./draws.js";
import { localInput, refuseUnreadable, time, whole } from "./inputs.js";
import { rules, rulesForm } from "./rules.js";
import { section } from "./section.js";

const SALES_MAX = 20;

// Calls `look(sale)` to show a sale's books, and `list(sale)` to show its orders.
export function sales(look, list) {
  const { element, body, act } = section("sales", t("console.sales"));
  const rows = el("ul", { class: "list-unstyled" });

  const change = async (sale, fields, done) => {
    const changed = await act(() => call("PATCH", `/api/admin/sales/${sale.sale_id}`, fields));
    if (changed === undefined) return;
    announce(done);
    await refresh();
  };
  const rulesSaved = async ({ sale_id, units_per_prefix, eligible_registered_before }) => {
    announce(t("console.rules-saved"));
    // Another instance may answer with the rules of a second ago.
    await refresh((sale) => (sale.sale_id === sale_id ? { ...sale, units_per_prefix, eligible_registered_before } : sale));
    // The form has been replaced, and the focus would start at the top of the page.
    rows.querySelector(`[data-sale="${sale_id}"] summary`)?.focus();
  };
  const moment = () => new Date(now()).toISOString();
  const row = (sale) => {
    const tools = el("div", { class: "d-flex gap-2 flex-wrap mt-2" });
    if (sale.state === "upcoming") {
      tools.append(button("sm btn-outline-primary", t("console.open"), () => change(sale, { starts_at: moment() }, t("console.opened"))));
    }
    if (sale.state !== "ended") {
      tools.append(
        button("sm btn-outline-danger", t("console.close"), async () => {
          if (await confirm(t("console.close-question", { title: sale.title }), t("console.close-yes"))) {
            // The end must be later than the start, so a future start is moved into the past.
            const begins = sale.state === "upcoming" ? { starts_at: new Date(now() - 1_000).toISOString() } : {};
            await change(sale, { ...begins, ends_at: moment() }, t("console.closed"));
          }
        }),
      );
    }
    tools.append(
      button("sm btn-outline-secondary", t("console.show-orders"), () => list(sale)),
      button("sm btn-outline-secondary", t("console.look-at-books"), () => look(sale)),
    );
    return el(
      "li",
      { class: "card mb-2", "data-sale": sale.sale_id },
      el(
        "div",
        { class: "card-body py-2" },
        el("strong", {}, sale.title),
        ` · ${t(`state.${sale.state}`)} · ${money(sale.price, sale.currency)} · `,
        t("stock.left", { available: number(sale.available), stock: number(sale.stock) }),
        el("div", { class: "small" }, t("sale.from-to", { from: date(sale.starts_at), to: date(sale.ends_at) })),
        rules(sale),
        sale.allocation === "draw" && drawPanel(sale),
        tools,
        sale.state !== "ended" && rulesForm(sale, rulesSaved),
      ),
    );
  };
  const refresh = async (known = (sale) => sale) => {
    const page = await act(() => call("GET", `/api/sales?limit=${SALES_MAX}`));
    if (page !== undefined) rows.replaceChildren(...page.sales.map((sale) => row(known(sale))));
  };

  body.append(rows, creation(() => refresh()));
  refresh();
  return element;
}

function creation(created) {
  const title = field("title", t("console.field-title"), { required: true, maxlength: 200 });
  const price = field("price", t("console.field-price"), { type: "number", min: 1, step: 1, required: true });
  const currency = field("currency", t("console.field-currency"), { value: "USD", maxlength: 3, required: true });
  const stock = field("stock", t("console.field-stock"), { type: "number", min: 1, step: 1, required: true });
  const limit = field("per_user_limit", t("console.field-limit"), { type: "number", min: 1, step: 1, value: 1, required: true });
  const ofNetwork = field("units_per_prefix", t("console.field-network-limit"), { type: "number", min: 1, max: 1_000_000, step: 1 }, { hint: t("console.field-network-limit-hint") });
  const starts = field("starts_at", t("console.field-starts"), { type: "datetime-local", step: 1, required: true, value: localInput(now() + 60_000) });
  const ends = field("ends_at", t("console.field-ends"), { type: "datetime-local", step: 1, required: true, value: localInput(now() + 3_660_000) });
  const common = { title, price, currency, stock, per_user_limit: limit, units_per_prefix: ofNetwork, starts_at: starts, ends_at: ends };
  const draw = drawFields(localInput(now()), time);
  const fields = { ...common, ...draw.fields };

  // Sending the same form again after a missing answer creates no second sale.
  let sent = { json: "", key: "" };
  const keyOf = (sale) => {
    const json = JSON.stringify(sale);
    if (json !== sent.json) sent = { json, key: [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("") };
    return sent.key;
  };

  const told = el("div", { role: "status" });
  const element = form(
    [...Object.values(common).map((one) => one.element), ...draw.elements],
    t("console.create"),
    async () => {
      told.replaceChildren();
      if (refuseUnreadable(Object.values(fields))) return;
      const wanted = {
        title: title.control.value,
        price: whole(price),
        currency: currency.control.value.toUpperCase(),
        stock: whole(stock),
        per_user_limit: whole(limit),
        units_per_prefix: whole(ofNetwork),
        starts_at: time(starts),
        ends_at: time(ends),
        ...draw.read(),
      };
      const sale = await call("POST", "/api/admin/sales", wanted, { "Idempotency-Key": keyOf(wanted) });
      sent = { json: "", key: "" };
      told.replaceChildren(alertBox("success", t("console.created", { title: sale.title })));
      await created();
    },
    (error) => fields[error.problem.field] ?? null,
  );
  return el("details", { class: "mt-3", id: "create" }, el("summary", { class: "mb-2" }, t("console.create-title")), element, told);
}
