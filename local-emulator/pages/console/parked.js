// Unusable messages of the order queue.

import { call } from "../common/api.js";
import { announce, button, confirm, el } from "../common/dom.js";
import { number } from "../common/format.js";
import { t } from "../common/i18n.js";
import { section } from "./section.js";

export function parked() {
  const { element, body, act } = section("parked", t("console.parked"));
  let known = null;
  let counted = null;

  const settle = async (action, done) => {
    // Both actions resolve with null; undefined means a refusal.
    if ((await act(action)) === undefined) return;
    counted = null;
    announce(done);
    await refresh();
  };
  const row = (message) => {
    const address = `/api/admin/parked/${message.parked_id}`;
    return el(
      "li",
      { class: "card mb-2" },
      el(
        "div",
        { class: "card-body py-2" },
        el("p", { class: "mb-1", lang: "en" }, message.reason),
        el("pre", { class: "message small mb-2", tabindex: 0 }, message.body),
        el("p", { class: "small mb-2" }, t("console.parked-size", { bytes: number(message.bytes), orders: number(message.order_ids.length) })),
        el(
          "div",
          { class: "d-flex gap-2 flex-wrap" },
          button("sm btn-outline-primary", t("console.retry"), () => settle(() => call("POST", `${address}/retry`), t("console.retried"))),
          button("sm btn-outline-danger", t("console.discard"), async () => {
            if (await confirm(t("console.discard-question"), t("console.discard-yes"))) await settle(() => call("DELETE", address), t("console.discarded"));
          }),
        ),
      ),
    );
  };
  const refresh = async () => {
    const page = await act(() => call("GET", "/api/admin/parked"));
    if (page === undefined) return;
    known = page.parked.length;
    if (page.parked.length === 0) body.replaceChildren(el("p", {}, t("console.parked-none")));
    else body.replaceChildren(el("ul", { class: "list-unstyled" }, ...page.parked.map(row)));
  };
  refresh();
  // The stream reports their number; the list is read again when its number differs from the shown
  // one. The list is bounded: messages beyond its end must not cause a read every second.
  const count = (number) => {
    if (number === null || number === counted) return;
    counted = number;
    if (number !== known) refresh();
  };
  return { element, count };
}
