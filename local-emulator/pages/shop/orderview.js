// Shared by the list and the page of an order: its status, its actions and the time left for them.

import { call } from "../common/api.js";
import { countdown, now } from "../common/clock.js";
import { confirm, el } from "../common/dom.js";
import { actionButton } from "../common/form.js";
import { t } from "../common/i18n.js";
import { dropOrder } from "./attempts.js";

const COLOURS = { confirmed: "text-bg-primary", paid: "text-bg-success" };

export const statusBadge = (status) => el("span", { class: `badge ${COLOURS[status] ?? "text-bg-secondary"}` }, t(`status.${status}`));

// Buttons to pay and to cancel, and the time left. Calls `changed(order)` after an action and
// `over()` when the time is up.
export function actions(order, changed, over) {
  const status = el("div", { role: "status" });
  const box = el("div");
  if (!["queued", "confirmed"].includes(order.status)) return box;
  const does = (what) => async (repeat) => changed(await repeat(() => call("POST", `/api/orders/${order.order_id}/${what}`)));
  const cancelled = does("cancellation");
  const cancel = actionButton(
    "outline-danger",
    t("order.cancel"),
    async (repeat) => {
      if (!(await confirm(t("order.cancel-question"), t("order.cancel-yes")))) return;
      await cancelled(repeat);
      dropOrder(order);
    },
    status,
  );
  const buttons = el("div", { class: "d-flex flex-wrap gap-2 mb-2" });
  if (order.status === "confirmed") {
    const clock = el("span", { class: "countdown fw-bold", role: "timer" });
    const left = el("p", {}, t("order.time-left"), " ", clock);
    const pay = actionButton("success", t("order.pay"), does("payment"), status);
    box.append(left);
    if (Date.parse(order.pay_by) > now()) {
      buttons.append(pay);
      countdown(clock, order.pay_by, () => {
        left.replaceChildren(t("order.time-over"));
        pay.remove();
        over();
      });
    } else {
      left.replaceChildren(t("order.time-over"));
      over();
    }
  }
  buttons.append(cancel);
  box.append(buttons, status);
  return box;
}
