// The reader's language. The texts of the other language are not loaded.

import { local } from "./store.js";

export const LANGUAGES = { en: "English", zh: "中文" };

function choose() {
  const chosen = local.get("language");
  if (chosen in LANGUAGES) return chosen;
  for (const wanted of navigator.languages ?? []) {
    const language = wanted.toLowerCase().split("-")[0];
    if (language in LANGUAGES) return language;
  }
  return "en";
}

export const language = choose();
// For Intl and for `lang`: fonts and screen readers need the variant of Chinese.
export const locale = language === "zh" ? "zh-CN" : (navigator.languages ?? []).find((tag) => tag.startsWith("en")) ?? "en";
document.documentElement.lang = locale;

const messages = { ...(await import(`./i18n/${language}.js`)).default };

// Adds texts of pages that have their own catalogue.
export function extend(more) {
  Object.assign(messages, more);
}

export const has = (key) => key in messages;

// The text of a key, with {names} replaced.
export function t(key, values = {}) {
  return (messages[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}
