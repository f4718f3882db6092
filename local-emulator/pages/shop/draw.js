// A sale by draw on its page: from the entry to the invitation, or to the proof of the draw.

import { current } from "../common/account.js";
import { call, explain, persist, sleep } from "../common/api.js";
import { now } from "../common/clock.js";
import { alertBox, announce, el } from "../common/dom.js";
import { date } from "../common/format.js";
import { entitle } from "../common/frame.js";
import { t } from "../common/i18n.js";
import { allow, callVisitor, isWanted } from "./calling.js";
import { background, panel } from "./drawview.js";
import { enter, entryOf, isEntering, note, stopEntering } from "./entries.js";
import { follow } from "./following.js";
import { proof } from "./proof.js";

// What the page's button says and does in each phase; in others it is hidden.
const ACTIONS = {
  closed: { label: "draw.enter-later", does: null },
  open: { label: "draw.enter", does: "enter" },
  late: { label: "draw.enter-late", does: "enter" },
  invited: { label: "buy.now", does: "buy" },
};
// What it says instead to visitors who are not signed in; it leads them to the page where they can.
const SIGN_IN = { open: "draw.sign-in", late: "draw.sign-in", away: "nav.sign-in" };

// `onChange()` is called when the page should paint itself again.
export function drawing(first, onChange) {
  let sale = first;
  // The last answer about the entry; null: there is none; undefined: not known yet.
  let view = current() ? undefined : null;
  let shown = null;
  let asksForProof = false;

  const shownPanel = panel({ onMoment, onCallMe });
  const ask = follow(sale.sale_id, heard, failed);

  const passed = (time) => now() >= Date.parse(time);

  function phase() {
    if (view === undefined) return "looking";
    if (view === null) {
      if (passed(sale.ends_at)) return current() ? "over" : "away";
      if (passed(sale.starts_at)) return "late";
      return passed(sale.entries_open_at) ? "open" : "closed";
    }
    if (view.state !== "waiting") return view.state;
    if (!passed(sale.starts_at)) return "entered";
    return view.ahead === undefined ? "drawing" : "waiting";
  }

  function paint(latest = sale) {
    sale = latest;
    const reached = phase();
    shownPanel.paint(reached, sale, view);
    if (reached !== shown) {
      if (shown !== null && shown !== "looking") announce(shownPanel.title());
      shown = reached;
      entitle(reached === "invited" ? `${t("draw.invited")} ${sale.title}` : sale.title);
    }
    if (passed(sale.ends_at)) showProof();
    else shownPanel.result(...(isOut() ? [el("p", { class: "mb-0" }, t("proof.later", { ends_at: date(sale.ends_at) }))] : []));
  }

  const isOut = () => ["passed", "sold_out"].includes(view?.state);

  function heard(answer) {
    view = answer;
    shownPanel.trouble("");
    if (answer?.state === "invited") callOnce(answer.invited_until);
    onChange();
    // After the end nothing changes any more.
    return !(passed(sale.ends_at) && ["bought", "passed", "sold_out"].includes(answer?.state));
  }

  function failed(error, text) {
    if (text !== "") {
      shownPanel.trouble(text);
      return;
    }
    if (error.slug === "unauthenticated") view = null;
    shownPanel.trouble(explain(error));
    onChange();
  }

  // A reload or another tab does not call again for the same invitation.
  function callOnce(invitedUntil) {
    if (entryOf(sale.sale_id)?.told === invitedUntil) return;
    note(sale, { told: invitedUntil });
    callVisitor(t("draw.invited"), t("draw.call-text", { title: sale.title }), sale.sale_id);
  }

  // A countdown has ended: the phase changes by itself or by the server's next answer.
  function onMoment() {
    onChange();
    if (view) ask();
  }

  async function onCallMe() {
    shownPanel.called(t((await allow()) ? "draw.called-both" : "draw.called-sound"));
  }

  async function showProof() {
    if (asksForProof || !current()) return;
    asksForProof = true;
    const { sale_id } = sale;
    try {
      const result = await persist(() => call("GET", `/api/sales/${sale_id}/draw`));
      const promised = [sale.seed_hash, entryOf(sale_id)?.seed_hash].filter(Boolean);
      shownPanel.result(el("h3", { class: "h5" }, t("proof.title")), ...(await proof(result, sale_id, current().user_id, promised)));
    } catch (error) {
      if (error.slug !== "draw-not-over") {
        shownPanel.result(alertBox("warning", explain(error)));
        return;
      }
      // The end was moved, or the page's estimate of the server's clock is slightly ahead.
      await sleep(2_000);
      asksForProof = false;
      onChange();
    }
  }

  if (isWanted()) shownPanel.called(t("draw.called-already"));

  return {
    element: shownPanel.element,
    background: background(sale),
    paint,
    phase,
    // { label, does } of the page's button, `does` being "enter", "buy" or null; null hides it.
    action() {
      const label = current() ? undefined : SIGN_IN[phase()];
      return label ? { label, does: "enter" } : (ACTIONS[phase()] ?? null);
    },
    // Finds the user's entry, also one made in another browser. Resolves with whether this tab was
    // interrupted while it was entering.
    async begin() {
      if (!current()) return false;
      await ask();
      if (view !== null) stopEntering(sale.sale_id);
      return view === null && isEntering(sale.sale_id);
    },
    async enter(hooks) {
      await enter(sale, hooks);
      view = { state: "waiting" };
      onChange();
      shownPanel.focus();
      ask();
    },
    ask,
  };
}
