// /problems and /problems/{slug}: the server renders them in English; this adds the shop's texts
// for visitors.

import { start } from "../common/frame.js";
import { language, t } from "../common/i18n.js";

start(document.title);

// Without values the texts are general.
const TIMES = ["left", "starts_at", "entries_open_at", "ends_at"];
const general = (slug) =>
  t(`problem.${slug}`, { ...Object.fromEntries(TIMES.map((name) => [name, t("problems.some-time")])), status: t("problems.final") }).trim();

for (const row of document.querySelectorAll("tr[data-slug]")) {
  if (language !== "en") row.querySelector(".problem-title").textContent = general(row.dataset.slug);
}

const article = document.querySelector("article[data-slug]");
if (article) {
  const text = article.querySelector(".problem-text");
  text.textContent = general(article.dataset.slug);
  text.hidden = false;
}
