// /orders: the visitor's orders, newest first, and the account.

import { current, signInAddress } from "../common/account.js";
import { call, explain, persist } from "../common/api.js";
import { alertBox, announce, button, confirm, el, link } from "../common/dom.js";
import { date, money } from "../common/format.js";
import { main, showFailure, showNotice, signOut, start } from "../common/frame.js";
import { t } from "../common/i18n.js";
import { acceptedOrders } from "./attempts.js";
import { actions, statusBadge } from "./orderview.js";

const PAGE = 10;

start(t("orders.title"));

const list = el("ul", { class: "list-unstyled" });
const more = el("p", { class: "text-center" });
const sales = new Map();
const shown = new Set();

// The order's sale, fetched once for all its orders; null when it can't be loaded now.
function saleOf(order) {
  if (!sales.has(order.sale_id)) sales.set(order.sale_id, call("GET", `/api/sales/${order.sale_id}`).catch(() => null));
  return sales.get(order.sale_id);
}

async function row(order) {
  const title = (await saleOf(order))?.title ?? t("sale.title");
  const element = el("li", { class: "card mb-3" });
  const paint = (order) => {
    element.replaceChildren(
      el(
        "div",
        { class: "card-body" },
        el("h2", { class: "h5" }, el("a", { href: `/orders/${order.order_id}` }, title)),
        el("p", { class: "mb-2" }, statusBadge(order.status), " ", money(order.price, order.currency), " · ", date(order.created_at)),
        actions(order, (order) => became(order), () => again(order)),
      ),
    );
  };
  const became = (order) => {
    paint(order);
    announce(t(`result.${order.status}`));
    element.querySelector("a").focus();
  };
  // The time to pay has ended; the server will expire the order shortly.
  const again = (order) => {
    setTimeout(async () => {
      const now = await call("GET", `/api/orders/${order.order_id}`).catch(() => order);
      if (now.status === order.status) again(order);
      else paint(now);
    }, 3_000);
  };
  paint(order);
  return element;
}

async function take(orders) {
  const fresh = orders.filter((order) => !shown.has(order.order_id));
  for (const order of fresh) shown.add(order.order_id);
  list.append(...(await Promise.all(fresh.map(row))));
}

function offerMore(cursor) {
  more.replaceChildren();
  if (cursor === null) return;
  const next = button("outline-primary", t("orders.more"), async () => {
    try {
      const page = await fetchPage(cursor);
      const before = list.childElementCount;
      await take(page.orders);
      offerMore(page.next_cursor);
      announce(t("more.loaded"));
      list.children[before]?.querySelector("a").focus();
    } catch (error) {
      showNotice(explain(error));
    }
  });
  more.append(next);
}

const fetchPage = (cursor) =>
  persist(() => call("GET", `/api/orders?limit=${PAGE}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`), showNotice);

// Orders of this tab that are not recorded yet are missing in the list; show them first.
async function takeQueued() {
  for (const id of acceptedOrders()) {
    const order = await call("GET", `/api/orders/${id}`).catch(() => null);
    if (order?.status === "queued") await take([order]);
  }
}

function account() {
  const everywhere = button("outline-danger", t("nav.sign-out-everywhere"), async () => {
    if (await confirm(t("sign-out.question"), t("sign-out.yes"))) await signOut("/api/sessions");
  });
  everywhere.id = "sign-out-everywhere";
  return el("section", { class: "border-top mt-5 pt-3" }, el("h2", { class: "h5" }, t("account.title")), el("p", {}, t("account.phone", current())), everywhere);
}

async function show() {
  if (!current()) {
    main.replaceChildren(el("h1", {}, t("orders.title")), alertBox("info", t("problem.unauthenticated")), link(signInAddress(), t("nav.sign-in"), "primary"));
    return;
  }
  const page = await fetchPage(null);
  await takeQueued();
  await take(page.orders);
  main.replaceChildren(el("h1", { class: "mb-4" }, t("orders.title")), shown.size === 0 ? el("p", {}, t("orders.none")) : list, more, account());
  offerMore(page.next_cursor);
}

try {
  await show();
} catch (error) {
  showFailure(error);
}
