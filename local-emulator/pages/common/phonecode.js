// The proof of a phone number: a captcha, a button that sends a code, and the field for the code.

import { call, explain, isPassing, sleep } from "./api.js";
import { captcha, captchasAreOn, isAboutCaptcha } from "./captcha.js";
import { alertBox, announce, button, el, enable, isEnabled } from "./dom.js";
import { field } from "./form.js";
import { date, words } from "./format.js";
import { t } from "./i18n.js";

// Whether phone numbers are verified.
export const codesAreOn = document.documentElement.dataset.phoneCodes === "on";

// Most numbers get three messages at once; this keeps impatient visitors from using them up.
const PAUSE_SECONDS = 60;

// `number()` returns the fields of the phone, or null after it has marked what is missing;
// `refuseNumber(error)` shows a refusal beside it.
export function phoneCode({ number, refuseNumber }) {
  const own = captcha({ purpose: "login" });
  const place = el("div");
  const status = el("p", { class: "form-text", role: "status" });
  const trouble = el("div");
  const input = field(
    "phone_code",
    t("code.label"),
    { type: "text", inputmode: "numeric", autocomplete: "one-time-code", maxlength: "16", required: true },
    { hint: t("code.hint") },
  );
  const askForCaptcha = () => {
    if (!captchasAreOn) return;
    place.replaceChildren(own.element);
    own.draw();
  };
  const countDown = async () => {
    const ends = performance.now() + PAUSE_SECONDS * 1_000;
    for (;;) {
      const left = Math.ceil((ends - performance.now()) / 1_000);
      if (left <= 0) break;
      send.textContent = t("code.wait", { left: words(left) });
      await sleep(250);
    }
    send.textContent = t("code.again");
    enable(send, true);
    askForCaptcha();
  };
  const ask = async () => {
    if (!isEnabled(send)) return;
    trouble.replaceChildren();
    const body = number();
    if (body === null) return;
    if (place.contains(own.element)) {
      if (!own.isAnswered()) return;
      enable(send, false);
      Object.assign(body, await own.answer());
    }
    enable(send, false);
    try {
      const { expires_at } = await call("POST", "/api/phone-codes", body);
      place.replaceChildren();
      status.textContent = t("code.sent", { until: date(expires_at) });
      announce(status.textContent);
      input.control.value = "";
      input.refuse();
      input.control.focus();
      countDown();
      return;
    } catch (error) {
      await refuse(error);
    }
    enable(send, true);
  };
  const refuse = async (error) => {
    if (isAboutCaptcha(error)) {
      place.replaceChildren(own.element);
      await own.refuse(error);
      return;
    }
    // The captcha is used even if a later check refused the request.
    if (place.contains(own.element)) await own.draw();
    if (error.problem?.field === "phone") refuseNumber(error);
    else trouble.replaceChildren(alertBox("danger", explain(error), isPassing(error) ? ` ${t("code.later", { left: words(Math.ceil((error.retryAfterMs ?? 1000) / 1000)) })}` : ""));
  };
  const send = button("outline-primary", t("code.send"), ask, { id: "send-code" });
  askForCaptcha();
  return {
    element: el("div", {}, place, el("p", {}, send), status, trouble, input.element),
    control: input.control,
    refuse: input.refuse,
  };
}
