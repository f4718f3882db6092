// /console: one screen to watch and control a live sale.

import { current, signInAddress } from "../common/account.js";
import { alertBox, el, link } from "../common/dom.js";
import { main, start } from "../common/frame.js";
import { t } from "../common/i18n.js";
import { actions } from "./actions.js";
import { blacklist } from "./blacklist.js";
import { books } from "./books.js";
import { defence } from "./defence.js";
import { live } from "./live.js";
import { orders } from "./orders.js";
import { parked } from "./parked.js";
import { sales } from "./sales.js";

start(t("console.title"));

function refused(text) {
  main.replaceChildren(el("h1", {}, t("console.title")), alertBox("warning", text), link(signInAddress(), t("nav.sign-in"), "primary"));
}

// The server checks the role itself; this only avoids showing a page full of refusals.
if (current() === null) refused(t("problem.unauthenticated"));
else if (current().role !== "admin") refused(t("console.not-admin"));
else {
  const [looked, shown, trail] = [books(), parked(), actions()];
  const bought = orders(trail.refresh);
  const defences = defence(trail.refresh);
  main.replaceChildren(
    el("h1", {}, t("console.title")),
    live((second) => {
      shown.count(second.queue_parked);
      defences.take(second);
    }),
    defences.element,
    sales((sale) => looked.look(sale), (sale) => bought.look(sale)),
    bought.element,
    looked.element,
    shown.element,
    blacklist(),
    trail.element,
  );
}
