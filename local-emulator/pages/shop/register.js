// /register

import { el } from "../common/dom.js";
import { main, start } from "../common/frame.js";
import { t } from "../common/i18n.js";
import { codesAreOn } from "../common/phonecode.js";
import { changeAndSignIn, credentialsForm } from "./credentials.js";

start(t("register.title"));

const register = (body, told) => changeAndSignIn("POST", "/api/users", body, told);

main.replaceChildren(
  el("h1", {}, t("register.title")),
  credentialsForm({ label: t("register.do"), isNew: true, proves: codesAreOn, send: register }),
  el("p", {}, t("register.known"), " ", el("a", { href: `/sign-in${location.search}` }, t("sign-in.title"))),
  codesAreOn ? el("p", {}, el("a", { href: `/forgot-password${location.search}` }, t("forgot.title"))) : "",
);
