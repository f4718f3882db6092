// Bans, newest first: the operators' and the automatic ones.

import { call, explain } from "../common/api.js";
import { alertBox, announce, button, el } from "../common/dom.js";
import { date, number } from "../common/format.js";
import { field, form } from "../common/form.js";
import { t } from "../common/i18n.js";
import { section } from "./section.js";

const BANS_MAX = 50;
const KINDS = { user: t("console.ban-user"), phone: t("console.ban-phone"), address: t("console.ban-address"), network: t("console.ban-network") };

export function blacklist() {
  const { element, body, act } = section("blacklist", t("console.blacklist"));
  const list = el("div", {});

  const row = (ban) =>
    el(
      "tr",
      {},
      el("td", {}, KINDS[ban.kind]),
      el("td", {}, el("code", {}, ban.value)),
      el("td", {}, ban.reason),
      el("td", {}, date(ban.created_at)),
      el("td", {}, ban.expires_at === null ? t("console.ban-for-good") : date(ban.expires_at)),
      el(
        "td",
        {},
        button(
          "sm btn-outline-secondary",
          t("console.lift"),
          async () => {
            const query = new URLSearchParams({ kind: ban.kind, value: ban.value });
            if ((await act(() => call("DELETE", `/api/admin/blacklist?${query}`))) === undefined) return;
            announce(t("console.lifted"));
            await refresh();
          },
          { "aria-label": t("console.lift-of", { value: ban.value }) },
        ),
      ),
    );
  const refresh = async () => {
    const page = await act(() => call("GET", `/api/admin/blacklist?limit=${BANS_MAX}`));
    if (page === undefined) return;
    if (page.bans.length === 0) {
      list.replaceChildren(el("p", {}, t("console.bans-none")));
      return;
    }
    const heads = [t("console.ban-kind"), t("console.ban-value"), t("console.ban-reason"), t("console.ban-since"), t("console.ban-until"), ""];
    const table = el(
      "table",
      { class: "table table-sm" },
      el("thead", {}, el("tr", {}, ...heads.map((text) => (text === "" ? el("td", {}) : el("th", { scope: "col" }, text))))),
      el("tbody", {}, ...page.bans.map(row)),
    );
    list.replaceChildren(el("div", { class: "table-responsive", tabindex: 0, role: "region", "aria-label": t("console.blacklist") }, table));
  };

  body.append(list, putting(refresh));
  refresh();
  return element;
}

function putting(put) {
  const choice = el("select", { class: "form-select" }, ...Object.entries(KINDS).map(([value, label]) => el("option", { value }, label)));
  const kind = field("kind", t("console.ban-kind"), {}, { input: choice });
  const value = field("value", t("console.ban-value"), { required: true });
  const reason = field("reason", t("console.ban-reason"), { required: true, maxlength: 200 });
  const until = field("expires_at", t("console.ban-until"), { type: "datetime-local" }, { hint: t("console.ban-until-hint") });
  const fields = { kind, value, reason, expires_at: until };
  const reach = el("div", { class: "mb-3", role: "status" });
  const look = async () => {
    reach.replaceChildren();
    try {
      const query = new URLSearchParams({ kind: choice.value, value: value.control.value });
      const found = await call("GET", `/api/admin/blacklist/preview?${query}`);
      const numbers = { users: number(found.users), orders: number(found.orders), active: number(found.active_orders) };
      reach.replaceChildren(t(found.searched_orders === null ? "console.ban-reach-user" : "console.ban-reach", { ...numbers, sessions: number(found.sessions ?? 0), searched: number(found.searched_orders ?? 0), network: found.address_prefix ?? "" }));
    } catch (error) {
      if (error.problem?.field === "value") {
        value.refuse(explain(error));
        value.control.focus();
      } else reach.replaceChildren(alertBox("danger", explain(error)));
    }
  };
  const preview = el("p", {}, button("outline-secondary", t("console.ban-preview"), look));
  const element = form(
    [...Object.values(fields).map((one) => one.element), preview, reach],
    t("console.ban"),
    async () => {
      const body = { kind: choice.value, value: value.control.value, reason: reason.control.value };
      if (until.control.value !== "") body.expires_at = new Date(until.control.value).toISOString();
      await call("POST", "/api/admin/blacklist", body);
      announce(t("console.banned"));
      await put();
    },
    (error) => fields[error.problem.field] ?? (error.slug === "invalid-phone" ? value : null),
  );
  return el("details", { class: "mt-3", id: "ban" }, el("summary", { class: "mb-2" }, t("console.ban-title")), element);
}
