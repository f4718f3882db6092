// A captcha as picture and audio.

import { button, el } from "./dom.js";
import { field } from "./form.js";
import { t } from "./i18n.js";

// `draw` fetches other letters.
export function letters(draw) {
  let captchaId = null;
  const image = el("img", { alt: t("captcha.alt"), width: "220", height: "120" });
  const sound = el("audio", { controls: true, hidden: true, preload: "none", "aria-label": t("captcha.sound") });
  const input = field("captcha", t("captcha.label"), {
    type: "text",
    autocomplete: "off",
    autocapitalize: "none",
    spellcheck: "false",
    maxlength: "16",
  });
  const listen = () => {
    if (captchaId === null) return;
    sound.src = `/api/captchas/${captchaId}/audio`;
    sound.hidden = false;
    // The controls are for browsers that do not allow autoplay.
    sound.play().catch(() => {});
    input.control.focus();
  };
  sound.addEventListener("error", () => {
    if (sound.hasAttribute("src")) input.refuse(t("problem.captcha-gone"));
  });
  const isBegun = () => input.control.value.trim() !== "";
  return {
    element: el(
      "div",
      {},
      el("p", {}, image),
      el(
        "p",
        { class: "d-flex flex-wrap gap-2" },
        button("sm btn-outline-secondary", t("captcha.other"), draw, { id: "captcha-other" }),
        button("sm btn-outline-secondary", t("captcha.listen"), listen, { id: "captcha-listen" }),
      ),
      sound,
      input.element,
    ),
    show(drawn) {
      captchaId = drawn.captcha_id;
      image.src = drawn.image;
      sound.hidden = true;
      sound.removeAttribute("src");
      input.control.value = "";
    },
    stop() {},
    isBegun,
    isAnswered() {
      if (isBegun()) return true;
      input.refuse(t("captcha.missing"));
      input.control.focus();
      return false;
    },
    answer: async () => input.control.value,
    refuse: input.refuse,
    focus: () => input.control.focus(),
  };
}
