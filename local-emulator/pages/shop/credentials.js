// Shared by signing in and registering: the form, and the sign-in itself.

import { remember, wayBack } from "../common/account.js";
import { call, persist } from "../common/api.js";
import { captcha, captchasAreOn, isAboutCaptcha } from "../common/captcha.js";
import { el } from "../common/dom.js";
import { field, form } from "../common/form.js";
import { language, t } from "../common/i18n.js";
import { local } from "../common/store.js";

// `send(body, told)` makes the page's request. With `isNew` the form asks for a new password and
// shows a captcha from the start.
export function credentialsForm({ label, isNew, send }) {
  const choice = el(
    "select",
    { class: "form-select", autocomplete: "country" },
    el("option", { value: "US" }, t("country.US")),
    el("option", { value: "CN" }, t("country.CN")),
  );
  choice.value = local.get("country") ?? (language === "zh" ? "CN" : "US");
  const country = field("country", t("country"), {}, { input: choice });
  const phone = field("phone", t("phone"), { type: "tel", autocomplete: "username", maxlength: "64", required: true }, { hint: t("phone.hint") });
  const password = field(
    "password",
    t("password"),
    { type: "password", autocomplete: isNew ? "new-password" : "current-password", required: true },
    { hint: isNew ? t("password.hint") : null },
  );
  const place = el("div");
  const own = captcha({ purpose: "login" });
  if (isNew && captchasAreOn) {
    place.append(own.element);
    own.draw();
  }

  const submit = async (told) => {
    local.set("country", choice.value);
    const body = { phone: phone.control.value, country: choice.value, password: password.control.value };
    if (body.phone.trim() === "") return missing(phone, "phone.missing");
    if (body.password === "") return missing(password, "password.missing");
    if (place.contains(own.element)) {
      if (!own.isAnswered()) return;
      Object.assign(body, await own.answer());
    }
    try {
      await send(body, told);
    } catch (error) {
      if (!isAboutCaptcha(error)) {
        // The captcha is used even if a later check refused the request.
        if (place.contains(own.element)) await own.draw();
        throw error;
      }
      told("");
      place.append(own.element);
      await own.refuse(error);
    }
  };
  const fields = { phone, country, password };
  const placeOf = (error) => fields[error.problem?.field] ?? { "phone-taken": phone, "bad-credentials": password }[error.slug] ?? null;
  return form([country.element, phone.element, password.element, place], label, submit, placeOf);
}

function missing(where, key) {
  where.refuse(t(key));
  where.control.focus();
}

// Signs in and returns to the visitor's previous page.
export async function signIn({ phone, country, password, ...captchaAnswer }, told) {
  // A lost answer is harmless: its unused session expires.
  const { user } = await persist(() => call("POST", "/api/sessions", { phone, country, password, ...captchaAnswer }), told, 30_000);
  remember(user);
  location.replace(wayBack());
  // The form stays blocked until the next page has loaded.
  await new Promise(() => {});
}
