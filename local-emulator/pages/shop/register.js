// /register

import { call, persist } from "../common/api.js";
import { el } from "../common/dom.js";
import { main, start } from "../common/frame.js";
import { t } from "../common/i18n.js";
import { credentialsForm, signIn } from "./credentials.js";

start(t("register.title"));

async function register(body, told) {
  let unsure = false;
  try {
    await persist(
      () =>
        call("POST", "/api/users", body).catch((error) => {
          // After these refusals the user may have been registered.
          unsure ||= ["no-answer", "unavailable", "function-failed", "function-timeout"].includes(error.slug);
          throw error;
        }),
      told,
      30_000,
    );
  } catch (error) {
    // An earlier attempt with this form may have taken the number; then signing in with its
    // password succeeds. A used captcha may have the same cause.
    if (!unsure || !["phone-taken", "captcha-gone"].includes(error.slug)) throw error;
    await signIn({ phone: body.phone, country: body.country, password: body.password }, told).catch(() => {
      throw error;
    });
  }
  await signIn({ phone: body.phone, country: body.country, password: body.password }, told);
}

main.replaceChildren(
  el("h1", {}, t("register.title")),
  credentialsForm({ label: t("register.do"), isNew: true, send: register }),
  el("p", {}, t("register.known"), " ", el("a", { href: `/sign-in${location.search}` }, t("sign-in.title"))),
);
