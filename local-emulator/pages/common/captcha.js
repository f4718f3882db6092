// A captcha of the kind that the server asks for.

import { call, explain, persist } from "./api.js";
import { alertBox, button, el } from "./dom.js";
import { t } from "./i18n.js";
import { letters } from "./captcha-letters.js";
import { provider } from "./captcha-provider.js";
import { work } from "./captcha-work.js";

const KINDS = { image: letters, work, provider };
// The configured kind; `off` when none is required. If it is outdated, the server refuses with
// `captcha-required`, and its answers name their kind.
const CONFIGURED = document.documentElement.dataset.captcha;
export const captchasAreOn = CONFIGURED !== "off";

// Shorter than a captcha's time to live.
const LIFE_MS = 110_000;

// `body` is the request for one. `draw()` fetches it; `isAnswered()` marks what the visitor has
// left out; `answer()` resolves with the request's fields; `refuse(error)` shows the error and
// draws another; `focus()` goes to what the visitor has to do. `needsVisitor()`: whether there is
// anything to do.
export function captcha(body) {
  let shown = null;
  let captchaId = null;
  let expiry = null;
  const place = el("div");
  const trouble = el("div");
  const element = el("fieldset", { class: "captcha mb-3" }, el("legend", { class: "fs-6" }, t("captcha.legend")), place, trouble);

  const draw = async () => {
    clearTimeout(expiry);
    shown?.stop();
    captchaId = null;
    let drawn;
    try {
      drawn = await persist(() => call("POST", "/api/captchas", body), (text) => (trouble.textContent = text));
    } catch (error) {
      trouble.replaceChildren(alertBox("danger", explain(error)), button("sm btn-outline-secondary", t("captcha.again"), draw));
      return;
    }
    trouble.replaceChildren();
    captchaId = drawn.captcha_id;
    if (shown?.kind !== drawn.kind) {
      shown = { kind: drawn.kind, ...KINDS[drawn.kind](draw, body.purpose) };
      place.replaceChildren(shown.element);
    }
    shown.show(drawn);
    // An expiring captcha is replaced as long as the visitor has not begun to answer it.
    expiry = setTimeout(() => element.isConnected && !shown.isBegun() && draw(), LIFE_MS);
  };

  return {
    element,
    draw,
    needsVisitor: () => (shown?.kind ?? CONFIGURED) !== "work",
    isAnswered: () => shown === null || shown.isAnswered(),
    answer: async () => {
      for (;;) {
        const asked = captchaId;
        if (asked === null) return {};
        const answer = await shown.answer();
        // It may have been replaced while its answer was being found.
        if (asked === captchaId) return { captcha_id: asked, captcha_answer: answer };
      }
    },
    focus: () => shown?.focus(),
    async refuse(error) {
      await draw();
      shown?.refuse(explain(error));
      shown?.focus();
    },
  };
}

export const isAboutCaptcha = (error) => ["captcha-required", "captcha-wrong", "captcha-gone"].includes(error.slug);
