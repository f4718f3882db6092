// A captcha as picture and audio.

import { call, explain, persist } from "./api.js";
import { alertBox, button, el } from "./dom.js";
import { field } from "./form.js";
import { t } from "./i18n.js";

// Whether captchas are required; if this is outdated, the server refuses with `captcha-required`.
export const captchasAreOn = document.documentElement.dataset.captcha === "on";

// `draw()` fetches one; `answer()` returns the request's fields; `refuse(error)` shows the error
// and draws another; `mark(text)` only shows an error.
// `purpose` is the request's body.
export function captcha(purpose) {
  let drawn = null;
  let expiry = null;
  const image = el("img", { alt: t("captcha.alt"), width: "220", height: "120" });
  const sound = el("audio", { controls: true, hidden: true, preload: "none", "aria-label": t("captcha.sound") });
  const trouble = el("div");
  const input = field("captcha", t("captcha.label"), {
    type: "text",
    autocomplete: "off",
    autocapitalize: "none",
    spellcheck: "false",
    maxlength: "16",
  });
  const draw = async () => {
    clearTimeout(expiry);
    try {
      drawn = await persist(() => call("POST", "/api/captchas", purpose), (text) => (trouble.textContent = text));
    } catch (error) {
      drawn = null;
      trouble.replaceChildren(alertBox("danger", explain(error)));
      return;
    }
    trouble.replaceChildren();
    image.src = drawn.image;
    sound.hidden = true;
    sound.removeAttribute("src");
    input.control.value = "";
    // An expiring picture is replaced as long as the visitor has typed nothing.
    expiry = setTimeout(() => input.control.value === "" && element.isConnected && draw(), LIFE_MS);
  };
  const listen = () => {
    if (drawn === null) return;
    sound.src = `/api/captchas/${drawn.captcha_id}/audio`;
    sound.hidden = false;
    // The controls are for browsers that do not allow autoplay.
    sound.play().catch(() => {});
    input.control.focus();
  };
  sound.addEventListener("error", () => {
    if (sound.hasAttribute("src")) input.refuse(t("problem.captcha-gone"));
  });
  const element = el(
    "fieldset",
    { class: "captcha mb-3" },
    el("legend", { class: "fs-6" }, t("captcha.legend")),
    el("p", {}, image),
    el(
      "p",
      { class: "d-flex flex-wrap gap-2" },
      button("sm btn-outline-secondary", t("captcha.other"), draw, { id: "captcha-other" }),
      button("sm btn-outline-secondary", t("captcha.listen"), listen, { id: "captcha-listen" }),
    ),
    sound,
    trouble,
    input.element,
  );
  return {
    element,
    control: input.control,
    draw,
    answer: () => (drawn === null ? {} : { captcha_id: drawn.captcha_id, captcha_answer: input.control.value }),
    mark: input.refuse,
    async refuse(error) {
      await draw();
      input.refuse(explain(error));
      input.control.focus();
    },
  };
}

// Shorter than a captcha's time to live.
const LIFE_MS = 110_000;

export const isAboutCaptcha = (error) => ["captcha-required", "captcha-wrong", "captcha-gone"].includes(error.slug);
