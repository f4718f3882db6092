// /orders/{order_id}: the result of a purchase, also while it is pending.

import { call, persist, sleep } from "../common/api.js";
import { announce, el } from "../common/dom.js";
import { date, money } from "../common/format.js";
import { main, showFailure, showNotice, start } from "../common/frame.js";
import { has, t } from "../common/i18n.js";
import { dropOrder } from "./attempts.js";
import { actions, statusBadge } from "./orderview.js";

start(t("order.title"));

const address = `/api/orders/${encodeURIComponent(location.pathname.split("/")[2])}`;

const ASK_FIRST_MS = 500;
const ASK_MAX_MS = 3_000;
// After this time the page says that it takes unusually long.
const LONG_MS = 15_000;

let sale = null;
const fetchOrder = () => persist(() => call("GET", address), showNotice);

function paint(order, isLong = false) {
  if (["cancelled", "expired", "rejected"].includes(order.status)) dropOrder(order);
  const kind = { confirmed: "success", paid: "success", queued: "info" }[order.status] ?? "warning";
  const text = [t(`result.${order.status}`)];
  if (order.status === "rejected") {
    const key = `reason.${order.reason}`;
    text.push(" ", has(key) ? t(key) : "");
  }
  if (order.cancellation_reason) text.push(" ", t("result.cancelled-by-seller", { reason: order.cancellation_reason }));
  if (isLong) text.push(" ", t("result.long"));
  const spinner = order.status === "queued" && el("span", { class: "spinner-border spinner-border-sm me-2", "aria-hidden": "true" });
  const result = el("div", { class: `alert alert-${kind}`, id: "result", "data-status": order.status }, spinner, ...text);
  const fact = (name, ...value) => [el("dt", { class: "col-sm-4" }, t(name)), el("dd", { class: "col-sm-8" }, ...value)];
  main.replaceChildren(
    el("h1", {}, t("order.title")),
    result,
    actions(order, became, () => watch("confirmed")),
    el(
      "dl",
      { class: "row" },
      fact("order.of", el("a", { href: `/sales/${order.sale_id}` }, sale?.title ?? t("sale.title"))),
      fact("order.status", statusBadge(order.status)),
      fact("order.price", money(order.price, order.currency)),
      fact("order.made", date(order.created_at)),
      order.pay_by && order.status === "confirmed" ? fact("order.pay-by", date(order.pay_by)) : [],
      fact("order.id", el("code", {}, order.order_id)),
    ),
    el("p", {}, el("a", { href: "/orders" }, t("nav.orders"))),
  );
}

// Announce a change to screen readers, once.
function became(order) {
  paint(order);
  announce(t(`result.${order.status}`));
  main.focus();
}

// Polls until the order's status differs from this one.
async function watch(status) {
  const since = performance.now();
  let isLong = false;
  for (let pause = ASK_FIRST_MS; ; pause = Math.min(ASK_MAX_MS, pause * 1.4)) {
    await sleep(pause * (1 + Math.random() / 4));
    let order;
    try {
      order = await fetchOrder();
    } catch (error) {
      showFailure(error);
      return;
    }
    if (order.status !== status) {
      became(order);
      return;
    }
    if (status === "queued" && !isLong && performance.now() - since > LONG_MS) {
      isLong = true;
      paint(order, isLong);
    }
  }
}

try {
  const order = await fetchOrder();
  // For the title and the server's clock; if this fails, the order is shown without them.
  sale = await call("GET", `/api/sales/${order.sale_id}`).catch(() => null);
  paint(order);
  if (order.status === "queued") {
    announce(t("result.queued"));
    watch("queued");
  }
} catch (error) {
  showFailure(error);
}
