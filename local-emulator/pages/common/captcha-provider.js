// A captcha in the widget of a provider: Turnstile, hCaptcha or reCAPTCHA. Their scripts give the
// page an object of the same form. The script is loaded when the first captcha is shown.

import { el, say } from "./dom.js";
import { t } from "./i18n.js";

const GLOBALS = { turnstile: "turnstile", hcaptcha: "hcaptcha", recaptcha: "grecaptcha" };
const PATIENCE_MS = 15_000;

let loading = null;

function load({ name, script_url }) {
  loading ??= new Promise((resolve, reject) => {
    const failed = () => {
      // Another attempt loads it again.
      loading = null;
      reject(new Error("the captcha provider's script can't be loaded"));
    };
    const script = el("script", { src: script_url });
    const deadline = setTimeout(failed, PATIENCE_MS);
    script.addEventListener("error", failed);
    script.addEventListener("load", () => {
      clearTimeout(deadline);
      const widget = globalThis[GLOBALS[name]];
      // reCAPTCHA's script loads a second one.
      if (widget?.ready && name === "recaptcha") widget.ready(() => resolve(widget));
      else if (widget) resolve(widget);
      else failed();
    });
    document.head.append(script);
  });
  return loading;
}

export function provider(_, purpose) {
  let token = "";
  let round = 0;
  const place = el("div", { class: "mb-2" });
  const status = el("p", { class: "mb-0", role: "status", id: "captcha-status" });
  return {
    element: el("div", {}, place, status),
    async show({ captcha_id, provider: given }) {
      const own = ++round;
      token = "";
      place.replaceChildren();
      try {
        const widget = await load(given);
        if (own !== round) return;
        const box = el("div");
        place.replaceChildren(box);
        widget.render(box, {
          sitekey: given.site_key,
          action: purpose,
          cData: captcha_id,
          callback: (made) => {
            if (own !== round) return;
            token = made;
            say(status, t("captcha.provided"));
          },
          "expired-callback": () => own === round && (token = ""),
        });
      } catch {
        // The server decides what an answer without a token is worth while the provider is down.
        if (own === round) say(status, t("captcha.no-provider"));
      }
    },
    stop: () => (round += 1),
    isBegun: () => token !== "",
    isAnswered() {
      if (token === "" && place.hasChildNodes()) say(status, t("captcha.unprovided"));
      return token !== "" || !place.hasChildNodes();
    },
    answer: async () => token,
    refuse: (text) => say(status, text),
    focus: () => place.querySelector("iframe, button")?.focus(),
  };
}
