// /sign-in

import { el } from "../common/dom.js";
import { main, start } from "../common/frame.js";
import { t } from "../common/i18n.js";
import { codesAreOn } from "../common/phonecode.js";
import { credentialsForm, signIn } from "./credentials.js";

start(t("sign-in.title"));
main.replaceChildren(
  el("h1", {}, t("sign-in.title")),
  credentialsForm({ label: t("sign-in.title"), isNew: false, send: signIn }),
  el("p", {}, t("sign-in.new"), " ", el("a", { href: `/register${location.search}` }, t("register.title"))),
  codesAreOn ? el("p", {}, el("a", { href: `/forgot-password${location.search}` }, t("forgot.title"))) : "",
);
