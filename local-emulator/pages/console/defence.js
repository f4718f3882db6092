// Who is refused and why, and the switch that makes proofs of work harder.

import { call } from "../common/api.js";
import { announce, button, el, say } from "../common/dom.js";
import { number } from "../common/format.js";
import { t } from "../common/i18n.js";
import { section } from "./section.js";

const HARD = "under_attack";

// A table of a name and a number, painted again only when it differs.
function table(heads, none) {
  const element = el("div", { class: "col-md-6" });
  let shown = null;
  const paint = (rows) => {
    const now = JSON.stringify(rows);
    if (now === shown) return;
    shown = now;
    const line = ([name, count]) => el("tr", {}, el("td", {}, el("code", {}, name)), el("td", { class: "text-end" }, number(count)));
    const head = el("tr", {}, el("th", { scope: "col" }, heads[0]), el("th", { scope: "col", class: "text-end" }, heads[1]));
    element.replaceChildren(
      rows.length === 0 ? el("p", {}, none) : el("table", { class: "table table-sm" }, el("thead", {}, head), el("tbody", {}, ...rows.map(line))),
    );
  };
  paint([]);
  return { element, paint };
}

// `changed()` is called after the level was changed. `take(second)` shows the refusals of a second.
export function defence(changed) {
  const { element, body, act } = section("defence", t("console.defence"));
  const state = el("p", {});
  const control = el("p", {});
  const reasons = table([t("console.reason"), t("console.refused")], t("console.refusals-none"));
  const networks = table([t("console.network"), t("console.refused")], t("console.refusals-none"));
  body.append(state, control, el("p", { class: "small mb-1" }, t("console.refusals-lead")), el("div", { class: "row" }, reasons.element, networks.element));

  const show = ({ level }) => {
    const hard = level === HARD;
    say(state, t(hard ? "console.level-hard" : "console.level-normal"));
    const set = async () => {
      const now = await act(() => call("PUT", "/api/admin/challenge-level", { level: hard ? "normal" : HARD }));
      if (now === undefined) return;
      show(now);
      control.querySelector("button").focus();
      announce(state.textContent);
      changed();
    };
    control.replaceChildren(button(hard ? "outline-secondary" : "danger", t(hard ? "console.level-to-normal" : "console.level-to-hard"), set));
  };
  act(() => call("GET", "/api/admin/challenge-level")).then((now) => now && show(now));

  const take = ({ refusals }) => {
    const most = Object.entries(refusals.reasons).sort((one, other) => other[1] - one[1]);
    reasons.paint(most.map(([slug, count]) => [slug, count]));
    networks.paint(refusals.networks.map(({ network, refused }) => [network, refused]));
  };
  return { element, take };
}
