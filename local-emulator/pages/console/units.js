// Where the units of each sale are: sold, reserved and available as one bar.

import { el, say } from "../common/dom.js";
import { number } from "../common/format.js";
import { t } from "../common/i18n.js";

const PARTS = ["sold", "reserved", "available"];
const label = { sold: t("console.sold"), reserved: t("console.reserved"), available: t("console.available") };

function bar(sale) {
  const parts = PARTS.map((name) => el("div", { class: name }));
  const text = el("p", { class: "mb-1" });
  const picture = el("div", { class: "units", role: "img" }, ...parts);
  const paint = (sale) => {
    // The figures are not read atomically, so a unit may be counted twice or not at all; the bar is
    // scaled to be full.
    const whole = Math.max(1, PARTS.reduce((all, name) => all + sale[name], 0));
    PARTS.forEach((name, at) => (parts[at].style.width = `${(100 * sale[name]) / whole}%`));
    const words = PARTS.map((name) => `${label[name]} ${number(sale[name])}`).join(", ");
    say(text, `${sale.title}: ${words}`);
    picture.setAttribute("aria-label", words);
  };
  paint(sale);
  return { element: el("div", { class: "mb-3", "data-sale": sale.sale_id }, text, picture), paint };
}

export function units() {
  const keys = PARTS.map((name) => el("span", { class: `me-3 key-${name}` }, label[name]));
  const list = el("div", { class: "mt-3" });
  const none = el("p", {}, t("console.no-sales"));
  const element = el("div", { class: "mt-3" }, el("h3", { class: "h6" }, t("console.units")), el("p", { class: "mb-2" }, ...keys), list);
  const bars = new Map();
  const paint = (sales) => {
    // The stores did not answer: keep the last figures.
    if (sales === null) return;
    for (const [id, old] of bars) {
      if (!sales.some((sale) => sale.sale_id === id)) {
        old.element.remove();
        bars.delete(id);
      }
    }
    for (const sale of sales) {
      if (bars.has(sale.sale_id)) {
        bars.get(sale.sale_id).paint(sale);
      } else {
        const made = bar(sale);
        bars.set(sale.sale_id, made);
        list.append(made.element);
      }
    }
    if (sales.length === 0) list.replaceChildren(none);
    else none.remove();
  };
  return { element, paint };
}
