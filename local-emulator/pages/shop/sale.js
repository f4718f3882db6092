// /sales/{sale_id}: one sale, and the button.

import { current, signInAddress } from "../common/account.js";
import { call, explain, persist, sleep } from "../common/api.js";
import { captcha } from "../common/captcha.js";
import { countdown, now } from "../common/clock.js";
import { alertBox, announce, button, el, enable, isEnabled, link, say } from "../common/dom.js";
import { date, number } from "../common/format.js";
import { entitle, main, showFailure, start } from "../common/frame.js";
import { t } from "../common/i18n.js";
import { attempt, drop, wasBegun } from "./attempts.js";
import { buy } from "./buying.js";
import { drawing } from "./draw.js";
import { drawBadge, paintBadge, photo, prices, stateOf, stockBar } from "./saleview.js";

start(t("sale.title"));

const saleId = location.pathname.split("/")[2];
const address = `/api/sales/${encodeURIComponent(saleId)}`;

let sale;
// The sale's draw, if it is by draw.
let draw = null;
// Whether a purchase is running. It stays true after success, because the next page is loading.
let busy = false;

const badge = el("span");
const stock = stockBar();
const label = el("p", { class: "mb-0" });
const clock = el("p", { class: "countdown large mb-3", role: "timer" });
const status = el("p", { class: "mt-3", role: "status", id: "status" });
const trouble = el("div", { class: "mt-3" });
const captchaPlace = el("div", { class: "mt-3 narrow" });
const own = el("div");
const press = button("danger btn-lg", "", onPress, { id: "buy", "aria-describedby": "status" });
let stopClock = () => {};

function paint() {
  const state = stateOf(sale);
  paintBadge(badge, state);
  stock.paint(sale);
  stopClock();
  if (draw) {
    // Units that are promised by invitations count as available: the bar would raise false hopes.
    label.hidden = clock.hidden = stock.element.hidden = true;
    draw.paint(sale);
    own.hidden = draw.phase() === "bought";
    paintButton(state);
    return;
  }
  const ended = state === "ended";
  label.hidden = clock.hidden = ended;
  clock.classList.toggle("large", state === "upcoming");
  if (!ended) {
    const upcoming = state === "upcoming";
    say(label, t(upcoming ? "sale.starts-in" : "sale.ends-in"));
    stopClock = countdown(clock, upcoming ? sale.starts_at : sale.ends_at, onMoment, upcoming ? "sale.announce" : null);
  }
  paintButton(state);
}

function paintButton(state) {
  if (busy) return;
  if (draw) {
    const action = draw.action();
    press.hidden = action === null;
    if (action) say(press, t(action.label));
    enable(press, Boolean(action?.does));
    say(status, draw.phase() === "closed" && !current() ? t("sale.sign-in-early") : "");
    return;
  }
  const texts = { upcoming: "buy.upcoming", open: "buy.now", sold_out: "buy.sold-out", ended: "buy.ended" };
  const another = state === "open" && attempt(saleId)?.stage === "accepted";
  say(press, t(another ? "buy.another" : texts[state]));
  enable(press, state === "open" && !(another && sale.per_user_limit === 1));
  press.hidden = another && sale.per_user_limit === 1;
  if (state === "sold_out") say(status, t("sold-out.wait"));
  else if (state === "upcoming" && !current()) say(status, t("sale.sign-in-early"));
  else say(status, "");
}

// When the sale opens or ends by the server's clock, the page updates itself.
function onMoment() {
  paint();
  if (stateOf(sale) === "open") announce(t("sale.open-now"));
}

async function onPress() {
  if (busy || !isEnabled(press)) return;
  if (!current()) {
    location.assign(signInAddress());
    return;
  }
  if (draw?.action()?.does === "enter") {
    await run(ENTERING);
    return;
  }
  // A second unit needs its own ticket.
  if (attempt(saleId)?.stage === "accepted") drop(saleId);
  await run(BUYING);
}

// What the button does: `act(hooks)` resolves with whether another page is loading.
const BUYING = {
  label: "buy.busy",
  text: "buy.busy-text",
  async act(hooks) {
    const orderId = await buy(saleId, hooks);
    say(status, t("buy.accepted"));
    location.assign(`/orders/${orderId}`);
    return true;
  },
};
const ENTERING = {
  label: "draw.entering",
  text: "draw.entering-text",
  send: "draw.captcha-send",
  async act(hooks) {
    await draw.enter(hooks);
    return false;
  },
};

async function run(step) {
  if (busy) return;
  busy = true;
  enable(press, false);
  say(press, t(step.label));
  say(status, t(step.text));
  trouble.replaceChildren();
  try {
    const isLeaving = await step.act({
      askCaptcha: (wrong) => askCaptcha(wrong, step.send),
      told: (text) => say(status, text || t(step.text)),
    });
    if (isLeaving) return;
    captchaPlace.replaceChildren();
    busy = false;
    paint();
    return;
  } catch (error) {
    captchaPlace.replaceChildren();
    busy = false;
    if (error !== GIVEN_UP) await showTrouble(error);
  }
  paint();
  press.focus();
}

async function showTrouble(error) {
  const parts = [alertBox("danger", explain(error))];
  if (error.slug === "unauthenticated") parts.push(link(signInAddress(), t("nav.sign-in"), "primary"));
  if (error.slug === "already-bought") parts.push(link(`/orders/${error.problem.order_id}`, t("order.show"), "primary"));
  trouble.replaceChildren(...parts);
  if (error.slug === "sold-out") sale.available = 0;
  if (error.slug === "not-invited") draw?.ask();
  // The ticket that was sent may still create an order, so the same ticket is sent when the visitor
  // tries again.
  if (attempt(saleId)?.stage === "sending") trouble.append(el("p", {}, t("buy.kept")));
}

const GIVEN_UP = Symbol("given up");

// Shows a captcha beside the button until it is answered, by the visitor or by the browser itself.
function askCaptcha(wrong, word = "captcha.send") {
  return new Promise((resolve, reject) => {
    let asked = captchaPlace.captcha;
    if (!asked || !captchaPlace.hasChildNodes()) {
      asked = captcha({ purpose: "purchase", sale_id: saleId });
      captchaPlace.captcha = asked;
    }
    const send = el("button", { type: "submit", class: "btn btn-primary", id: "captcha-send" }, t(word));
    const form = el(
      "form",
      { novalidate: true },
      asked.element,
      el(
        "div",
        { class: "d-flex flex-wrap gap-2" },
        send,
        button("outline-secondary", t("captcha.give-up"), () => {
          drop(saleId);
          reject(GIVEN_UP);
        }),
      ),
    );
    form.addEventListener(
      "submit",
      (event) => {
        event.preventDefault();
        if (!asked.isAnswered()) return;
        form.inert = true;
        resolve(asked.answer());
      },
    );
    captchaPlace.replaceChildren(form);
    send.hidden = !asked.needsVisitor();
    (wrong === null ? asked.draw() : asked.refuse(wrong)).then(() => {
      send.hidden = !asked.needsVisitor();
      if (asked.needsVisitor()) {
        say(status, t("captcha.now"));
        asked.focus();
      } else {
        resolve(asked.answer());
      }
    });
  });
}

// Continues a purchase that this tab began before it was reloaded, left or signed out.
async function resume() {
  const begun = attempt(saleId);
  if (begun === null) {
    if (!current() && wasBegun(saleId)) trouble.replaceChildren(alertBox("warning", t("buy.sign-in-to-go-on")), link(signInAddress(), t("nav.sign-in"), "primary"));
    return;
  }
  if (begun.stage === "asking" || begun.stage === "sending") {
    if (stateOf(sale) === "ended" && begun.stage === "asking") drop(saleId);
    else await run(BUYING);
    return;
  }
  if (begun.stage !== "accepted") return;
  try {
    const order = await persist(() => call("GET", `/api/orders/${begun.order_id}`), () => {}, 10_000);
    if (["cancelled", "expired", "rejected"].includes(order.status)) drop(saleId);
    else showOwn(order);
  } catch (error) {
    // Not found: the order was never created. Other problems are shown on the order's own page.
    if (error.slug === "not-found") drop(saleId);
    else showOwn(begun);
  }
}

function showOwn({ order_id, status = "queued" }) {
  own.replaceChildren(
    alertBox("success", t("sale.yours", { status: t(`status.${status}`) }), " ", el("a", { class: "alert-link", href: `/orders/${order_id}` }, t("order.show"))),
  );
}

// Refreshes the figures while the page is visible: often while the sale is open, rarely long before
// its start.
async function refresh() {
  for (;;) {
    const state = stateOf(sale);
    const untilStart = Date.parse(sale.starts_at) - now();
    // In a draw nobody hurries for units; the entry is followed by itself.
    const pause = state === "ended" ? 60_000 : draw && state !== "upcoming" ? 10_000 : state === "upcoming" ? Math.min(15_000, Math.max(untilStart, 0) + 1_500) : 2_000;
    await sleep(pause * (0.75 + Math.random() / 2));
    if (document.visibilityState !== "visible") continue;
    try {
      sale = await call("GET", address);
      paint();
    } catch {
      // The next round tries again. The old figures stay; pressing the button gives the current
      // answer.
      await sleep(2_000);
    }
  }
}

try {
  sale = await persist(() => call("GET", address), (text) => main.replaceChildren(text));
  entitle(sale.title);
  if (sale.allocation === "draw") draw = drawing(sale, paint);
  main.replaceChildren(
    el(
      "article",
      { class: "row g-4" },
      sale.image_url && el("div", { class: "col-md-6" }, photo(sale)),
      el(
        "div",
        { class: sale.image_url ? "col-md-6" : "col-12" },
        el("h1", {}, sale.title),
        el("p", {}, badge, " ", drawBadge(sale)),
        prices(sale),
        stock.element,
        own,
        draw?.element,
        label,
        clock,
        press,
        status,
        captchaPlace,
        trouble,
        draw?.background,
        el("p", { class: "description" }, sale.description),
        el("p", { class: "small" }, t("sale.from-to", { from: date(sale.starts_at), to: date(sale.ends_at) }), " ", t("sale.limit", { limit: number(sale.per_user_limit) }), sale.units_per_prefix ? ` ${t("sale.network-limit", { limit: number(sale.units_per_prefix) })}` : ""),
      ),
    ),
  );
  paint();
  const interrupted = draw && (await draw.begin());
  await resume();
  if (interrupted) await run(ENTERING);
  paint();
  refresh();
} catch (error) {
  showFailure(error);
}
