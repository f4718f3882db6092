// The books of a sale: green when every promise holds, otherwise red with the findings.

import { call } from "../common/api.js";
import { alertBox, el } from "../common/dom.js";
import { number } from "../common/format.js";
import { t } from "../common/i18n.js";
import { section } from "./section.js";

export function books() {
  const { element, body, act } = section("books", t("console.books"), el("p", {}, t("console.books-lead")));
  const look = async (sale) => {
    const found = await act(() => call("GET", `/api/admin/sales/${sale.sale_id}/books`));
    if (found === undefined) return;
    const values = { title: found.title };
    for (const name of ["stock", "available", "reserved", "sold"]) values[name] = number(found[name]);
    const line = el("p", {}, t("console.books-line", values));
    if (found.findings.length === 0) {
      body.replaceChildren(line, alertBox("success", t("console.books-balance")));
    } else {
      const wrong = found.findings.map((one) =>
        el("li", {}, `${t("console.books-promise", { promise: one.promise })} `, el("span", { lang: "en" }, one.what), " ", el("code", {}, one.ids.join(" "))),
      );
      body.replaceChildren(line, alertBox("danger", t("console.books-wrong"), el("ul", { class: "mb-0" }, ...wrong)));
    }
    element.scrollIntoView({ block: "nearest" });
  };
  return { element, look };
}
