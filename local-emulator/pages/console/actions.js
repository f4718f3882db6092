// The trail: who changed what, and when.

import { call } from "../common/api.js";
import { button, el } from "../common/dom.js";
import { date } from "../common/format.js";
import { t } from "../common/i18n.js";
import { section } from "./section.js";

const change = ({ field, from, to }) =>
  el("li", {}, el("code", {}, field), `: ${from === null ? "" : `${from} → `}${to ?? "–"}`);

export function actions() {
  const rows = el("tbody", {});
  const more = el("div", {});
  const heads = ["console.action-at", "console.action", "console.action-object", "console.action-changes", "console.action-by"];
  const table = el(
    "div",
    { class: "table-responsive", tabindex: 0, role: "region", "aria-label": t("console.actions") },
    el("table", { class: "table table-sm" }, el("thead", {}, el("tr", {}, ...heads.map((key) => el("th", { scope: "col" }, t(key))))), rows),
  );
  const { element, body, act } = section("actions", t("console.actions"), table, more);

  const row = (done) =>
    el(
      "tr",
      {},
      el("td", {}, date(done.at)),
      el("td", {}, t(`action.${done.action}`)),
      el("td", {}, el("code", {}, done.object)),
      el("td", {}, el("ul", { class: "list-unstyled small mb-0" }, ...done.changes.map(change))),
      el("td", {}, el("code", {}, done.admin_id), el("div", { class: "small" }, done.address_prefix)),
    );
  const load = async (cursor) => {
    const query = cursor === null ? "" : `?cursor=${cursor}`;
    const page = await act(() => call("GET", `/api/admin/actions${query}`));
    if (page === undefined) return;
    if (cursor === null) rows.replaceChildren();
    rows.append(...page.actions.map(row));
    if (page.next_cursor !== null) more.replaceChildren(button("outline-secondary", t("console.actions-more"), () => load(page.next_cursor)));
    else if (rows.childElementCount === 0) more.replaceChildren(el("p", {}, t("console.actions-none")));
    else more.replaceChildren();
  };
  const refresh = () => load(null);
  body.append(el("p", {}, button("sm btn-outline-secondary", t("console.actions-refresh"), refresh)));
  refresh();
  return { element, refresh };
}
