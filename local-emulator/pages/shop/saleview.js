// Shared by the list and the page of a sale.

import { el, say } from "../common/dom.js";
import { money, number } from "../common/format.js";
import { t } from "../common/i18n.js";
import { now } from "../common/clock.js";

// Uses the server's current time, because an answer is slightly old when it is shown.
export function stateOf(sale) {
  if (now() < Date.parse(sale.starts_at)) return "upcoming";
  if (now() >= Date.parse(sale.ends_at)) return "ended";
  return sale.available > 0 ? "open" : "sold_out";
}

const COLOURS = { upcoming: "text-bg-primary", open: "text-bg-success", sold_out: "text-bg-secondary", ended: "text-bg-secondary" };

export function paintBadge(badge, state) {
  badge.className = `badge ${COLOURS[state]}`;
  say(badge, t(`state.${state}`));
}

// Says that a sale is by draw; null for other sales.
export const drawBadge = (sale) => (sale.allocation === "draw" ? el("span", { class: "badge text-bg-info" }, t("draw.badge")) : null);

// What a countdown of the sale counts down to, as [message key, time]; null after its end.
export function nextMoment(sale) {
  const state = stateOf(sale);
  if (state === "ended") return null;
  if (state !== "upcoming") return ["sale.ends-in", sale.ends_at];
  if (sale.allocation !== "draw") return ["sale.starts-in", sale.starts_at];
  return now() < Date.parse(sale.entries_open_at) ? ["draw.opens-in", sale.entries_open_at] : ["draw.open-draw-in", sale.starts_at];
}

export const prices = (sale) =>
  el(
    "p",
    { class: "mb-2" },
    el("span", { class: "visually-hidden" }, t("price.now")),
    el("span", { class: "price" }, money(sale.price, sale.currency)),
    sale.original_price > sale.price && [
      " ",
      el("span", { class: "visually-hidden" }, t("price.before")),
      el("s", { class: "old-price" }, money(sale.original_price, sale.currency)),
    ],
  );

// A bar and a text for the remaining units. `paint(sale)` updates them.
export function stockBar() {
  const bar = el("div", { class: "progress-bar bg-danger" });
  const box = el("div", { class: "progress stock", role: "progressbar", "aria-label": t("stock.label"), "aria-valuemin": "0" }, bar);
  const text = el("p", { class: "small mb-1" });
  const paint = ({ available, stock }) => {
    const left = t("stock.left", { available: number(available), stock: number(stock) });
    say(text, left);
    bar.style.width = `${(100 * available) / stock}%`;
    box.setAttribute("aria-valuemax", stock);
    box.setAttribute("aria-valuenow", available);
    box.setAttribute("aria-valuetext", left);
  };
  return { element: el("div", { class: "mb-3" }, text, box), paint };
}

// A picture that can't be loaded is removed.
export function photo(sale) {
  if (!sale.image_url) return null;
  const image = el("img", { class: "photo", src: sale.image_url, alt: "", loading: "lazy", referrerpolicy: "no-referrer" });
  image.addEventListener("error", () => image.remove());
  return image;
}
