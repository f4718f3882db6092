// The signed-in user. The session itself is in a cookie that no script can read; this is a copy of
// its user, so that pages need not ask the server for it.

import { local } from "./store.js";

const KEY = "account";

// { user_id, phone, role } or null. Only the server knows whether the session is still alive; the
// visitor's clock is not used to decide it.
export const current = () => local.get(KEY);

export const remember = (user) => local.set(KEY, user);

export const forget = () => local.remove(KEY);

// Another tab signed in or out, so this tab shows another user's data.
addEventListener("storage", (event) => {
  if (event.key === KEY) location.reload();
});

// Returns only to this site, whatever the parameter contains.
export function wayBack() {
  const wanted = new URLSearchParams(location.search).get("next") ?? "/";
  try {
    const url = new URL(wanted, location.origin);
    // Use the whole URL with its origin: a path may begin with two slashes, which alone would be
    // another site's URL.
    return url.origin === location.origin ? url.origin + url.pathname + url.search : "/";
  } catch {
    return "/";
  }
}

export const signInAddress = () => `/sign-in?next=${encodeURIComponent(location.pathname)}`;
