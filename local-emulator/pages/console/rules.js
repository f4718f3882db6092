// The two optional rules of a sale, the limit per network and the latest registration: shows, changes
// and removes them.

import { call } from "../common/api.js";
import { el } from "../common/dom.js";
import { field, form } from "../common/form.js";
import { date, number } from "../common/format.js";
import { t } from "../common/i18n.js";
import { localInput, refuseUnreadable, time, whole } from "./inputs.js";

export function rules(sale) {
  const { units_per_prefix: limit, eligible_registered_before: before } = sale;
  const said = [limit && t("sale.network-limit", { limit: number(limit) }), before && t("draw.eligible", { registered_before: date(before) })];
  return said.some(Boolean) && el("div", { class: "small" }, said.filter(Boolean).join(" "));
}

// Calls `saved(sale)` with the sale as it is after a change. Fields that were not touched are not sent, so the form takes
// back nothing that another administrator has changed meanwhile.
export function rulesForm(sale, saved) {
  const ofNetwork = field(
    `units_per_prefix-${sale.sale_id}`,
    t("console.field-network-limit"),
    { type: "number", min: 1, max: 1_000_000, step: 1, value: sale.units_per_prefix ?? "" },
    { hint: t("console.field-network-limit-hint") },
  );
  const eligible = field(
    `eligible_registered_before-${sale.sale_id}`,
    t("console.field-eligible"),
    { type: "datetime-local", step: 1, value: sale.eligible_registered_before ? localInput(Date.parse(sale.eligible_registered_before)) : "" },
    { hint: t("console.field-eligible-hint") },
  );
  const inputs = { units_per_prefix: [ofNetwork, whole], eligible_registered_before: [eligible, time] };
  // As the browser writes it, which may differ from the attribute.
  const shown = new Map([ofNetwork, eligible].map((input) => [input, input.control.value]));
  const send = async () => {
    if (refuseUnreadable([ofNetwork, eligible])) return;
    const touched = Object.entries(inputs).filter(([, [input]]) => input.control.value !== shown.get(input));
    if (touched.length === 0) return;
    await saved(await call("PATCH", `/api/admin/sales/${sale.sale_id}`, Object.fromEntries(touched.map(([name, [input, read]]) => [name, read(input)]))));
  };
  const element = form([ofNetwork.element, eligible.element], t("console.rules-save"), send, (error) => inputs[error.problem.field]?.[0] ?? null);
  return el("details", { class: "mt-2" }, el("summary", {}, t("console.rules")), element);
}
