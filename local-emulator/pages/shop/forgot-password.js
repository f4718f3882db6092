// /forgot-password

import { el } from "../common/dom.js";
import { main, start } from "../common/frame.js";
import { t } from "../common/i18n.js";
import { codesAreOn } from "../common/phonecode.js";
import { changeAndSignIn, credentialsForm } from "./credentials.js";

start(t("forgot.title"));

const recover = (body, told) => changeAndSignIn("PUT", "/api/users/password", body, told);

main.replaceChildren(
  el("h1", {}, t("forgot.title")),
  el("p", {}, t(codesAreOn ? "forgot.lead" : "forgot.off")),
  codesAreOn ? credentialsForm({ label: t("forgot.do"), isNew: true, proves: true, unknown: "forgot.unknown", send: recover }) : "",
  el("p", {}, el("a", { href: `/sign-in${location.search}` }, t("sign-in.title"))),
);
