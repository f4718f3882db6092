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
          // These say that it may have been done all the same.
          unsure ||= ["no-answer", "unavailable", "function-failed", "function-timeout"].includes(error.slug);
          throw error;
        }),
      told,
      30_000,
    );
  } catch (error) {
    // The number may be taken by this very form; then its password opens it. A used-up captcha may mean the same.
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
