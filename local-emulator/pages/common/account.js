// Who is signed in, as far as this page needs it. The session itself is in a cookie that no script can read; this is only a
// note of it, so that pages need not ask the server who is looking at them.

import { local } from "./store.js";

const KEY = "account";

// { user_id, phone, role } or null. Whether the session still lives only the server knows; the visitor's clock is not asked.
export const current = () => local.get(KEY);

export const remember = (user) => local.set(KEY, user);

export const forget = () => local.remove(KEY);

// Another tab signed in or out: whatever this one shows is of another user.
addEventListener("storage", (event) => {
  if (event.key === KEY) location.reload();
});

// A way back to this site only, whatever the address says.
export function wayBack() {
  const wanted = new URLSearchParams(location.search).get("next") ?? "/";
  try {
    const url = new URL(wanted, location.origin);
    // Whole, with the origin: a path may begin with two slashes, and by itself it would be another site's address.
    return url.origin === location.origin ? url.origin + url.pathname + url.search : "/";
  } catch {
    return "/";
  }
}

export const signInAddress = () => `/sign-in?next=${encodeURIComponent(location.pathname)}`;
