// / : all sales, newest first.

import { call, explain, isPassing, persist, sleep } from "../common/api.js";
import { countdown } from "../common/clock.js";
import { announce, button, el, say } from "../common/dom.js";
import { main, showFailure, showNotice, start } from "../common/frame.js";
import { t } from "../common/i18n.js";
import { drawBadge, nextMoment, paintBadge, photo, prices, stateOf, stockBar } from "./saleview.js";

const REFRESH_MS = 8_000;

start(t("sales.title"));

const cards = new Map();
const list = el("ul", { class: "row row-cols-1 row-cols-md-2 row-cols-lg-3 g-4 list-unstyled" });
const more = el("p", { class: "text-center mt-4" });

function card(sale) {
  const badge = el("span");
  const stock = stockBar();
  const label = el("span");
  const clock = el("span", { class: "countdown" });
  const time = el("p", { class: "mb-0" }, label, " ", clock);
  let shown = sale;
  let stop = () => {};
  const paint = (sale = shown) => {
    shown = sale;
    const state = stateOf(sale);
    paintBadge(badge, state);
    stock.paint(sale);
    stock.element.hidden = state === "ended";
    stop();
    const next = nextMoment(sale);
    time.hidden = next === null;
    if (next === null) return;
    say(label, t(next[0]));
    stop = countdown(clock, next[1], () => paint());
  };
  paint();
  const element = el(
    "li",
    { class: "col" },
    el(
      "article",
      { class: "card h-100" },
      el(
        "div",
        { class: "card-body" },
        photo(sale),
        el("h2", { class: "h5 card-title" }, el("a", { class: "stretched-link", href: `/sales/${sale.sale_id}` }, sale.title)),
        el("p", { class: "mb-2" }, badge, " ", drawBadge(sale)),
        prices(sale),
        stock.element,
        time,
      ),
    ),
  );
  return { element, paint };
}

function take({ sales }) {
  for (const sale of sales) {
    const known = cards.get(sale.sale_id);
    if (known) {
      known.paint(sale);
      continue;
    }
    const made = card(sale);
    cards.set(sale.sale_id, made);
    list.append(made.element);
  }
}

function offerMore(cursor) {
  more.replaceChildren();
  if (cursor === null) return;
  const next = button("outline-primary", t("sales.more"), async () => {
    try {
      const page = await persist(() => call("GET", `/api/sales?cursor=${encodeURIComponent(cursor)}`), showNotice);
      const before = list.childElementCount;
      take(page);
      offerMore(page.next_cursor);
      announce(t("more.loaded"));
      list.children[before]?.querySelector("a").focus();
    } catch (error) {
      showNotice(explain(error));
    }
  });
  more.append(next);
}

try {
  const page = await persist(() => call("GET", "/api/sales"), showNotice);
  take(page);
  main.replaceChildren(
    el("h1", { class: "mb-4" }, t("sales.title")),
    page.sales.length === 0 ? el("p", {}, t("sales.none")) : list,
    more,
  );
  offerMore(page.next_cursor);
  refresh();
} catch (error) {
  showFailure(error);
}

async function refresh() {
  for (;;) {
    await sleep(REFRESH_MS * (0.75 + Math.random() / 2));
    if (document.visibilityState !== "visible") continue;
    // Refresh the first page only: older sales rarely change.
    await call("GET", "/api/sales").then(take, (error) => {
      if (!isPassing(error)) showNotice(explain(error));
    });
  }
}
