// Shared by signing in, registering and replacing a password: the form, and the sign-in itself.

import { remember, wayBack } from "../common/account.js";
import { call, explain, persist } from "../common/api.js";
import { captcha, captchasAreOn, isAboutCaptcha } from "../common/captcha.js";
import { el } from "../common/dom.js";
import { field, form } from "../common/form.js";
import { language, t } from "../common/i18n.js";
import { phoneCode } from "../common/phonecode.js";
import { local } from "../common/store.js";

// `send(body, told)` makes the page's request. With `isNew` the form asks for a new password; with
// `proves` for a code that was sent to the phone, else it shows a captcha from the start. `unknown`
// is the text for a number that nobody is registered with.
export function credentialsForm({ label, isNew, proves = false, unknown = null, send }) {
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
  const number = () => {
    local.set("country", choice.value);
    if (phone.control.value.trim() === "") return missing(phone, "phone.missing");
    return { phone: phone.control.value, country: choice.value };
  };
  const refuseNumber = (error) => {
    phone.refuse(explain(error));
    phone.control.focus();
  };
  const code = proves ? phoneCode({ number, refuseNumber }) : null;
  const place = el("div");
  const own = captcha({ purpose: "login" });
  if (isNew && !proves && captchasAreOn) {
    place.append(own.element);
    own.draw();
  }

  const submit = async (told) => {
    const body = number();
    if (body === null) return;
    if (code !== null) {
      body.phone_code = code.control.value;
      if (body.phone_code.trim() === "") return missing(code, "code.missing");
    }
    body.password = password.control.value;
    if (body.password === "") return missing(password, "password.missing");
    if (place.contains(own.element)) {
      if (!own.isAnswered()) return;
      Object.assign(body, await own.answer());
    }
    try {
      await send(body, told);
    } catch (error) {
      if (unknown !== null && error.slug === "not-found") return missing(phone, unknown);
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
  const fields = { phone, country, password, phone_code: code };
  const bySlug = { "phone-taken": phone, "bad-credentials": password, "code-wrong": code, "code-gone": code };
  const placeOf = (error) => fields[error.problem?.field] ?? bySlug[error.slug] ?? null;
  const parts = [country.element, phone.element, code?.element, password.element, place].filter(Boolean);
  return form(parts, label, submit, placeOf);
}

function missing(where, key) {
  where.refuse(t(key));
  where.control.focus();
  return null;
}

// Signs in and returns to the visitor's previous page.
export async function signIn({ phone, country, password, captcha_id, captcha_answer }, told) {
  // A lost answer is harmless: its unused session expires.
  const body = { phone, country, password, captcha_id, captcha_answer };
  const { user } = await persist(() => call("POST", "/api/sessions", body), told, 30_000);
  remember(user);
  location.replace(wayBack());
  // The form stays blocked until the next page has loaded.
  await new Promise(() => {});
}

// Makes a request that gives the number this password, and signs in with it.
export async function changeAndSignIn(method, path, body, told) {
  const { phone, country, password } = body;
  let unsure = false;
  try {
    await persist(
      () =>
        call(method, path, body).catch((error) => {
          // After these refusals the request may have taken effect.
          unsure ||= ["no-answer", "unavailable", "function-failed", "function-timeout"].includes(error.slug);
          throw error;
        }),
      told,
      30_000,
    );
  } catch (error) {
    // An earlier attempt with this form may have succeeded; then signing in with its password does
    // too. A used captcha or code may have the same cause.
    if (!unsure || !["phone-taken", "captcha-gone", "code-gone"].includes(error.slug)) throw error;
    await signIn({ phone, country, password }, told).catch(() => {
      throw error;
    });
  }
  await signIn({ phone, country, password }, told);
}
