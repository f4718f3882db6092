// Calls a visitor who does not look at the page: by a sound, and by a notification. Browsers allow
// both only after a click, and the sound once more after each reload.

import { sleep } from "../common/api.js";
import { local } from "../common/store.js";

const KEY = "call-me";
const UNLOCK_MS = 500;

let audio = null;

export const isWanted = () => local.get(KEY) === true;

const hasNotifications = "Notification" in globalThis;

// Call it in a click. Plays the sound once, and resolves with whether notifications are allowed.
export async function allow() {
  local.set(KEY, true);
  // Some browsers accept the question only before the first await.
  const asked = hasNotifications && Notification.permission === "default" ? Notification.requestPermission() : null;
  await unlock();
  ring();
  await asked;
  return hasNotifications && Notification.permission === "granted";
}

// Resolves when the sound is allowed. Without a sound device that may never happen, and the
// notification remains.
async function unlock() {
  if (!("AudioContext" in globalThis)) return;
  audio ??= new AudioContext();
  await Promise.race([audio.resume(), sleep(UNLOCK_MS)]);
}

// After a reload, the next press of anything allows the sound again.
if (isWanted()) {
  for (const kind of ["pointerdown", "keydown"]) addEventListener(kind, unlock, { once: true });
}

const NOTES = [660, 880, 1320];
const NOTE_SECONDS = 0.3;

function ring() {
  if (audio?.state !== "running") return;
  NOTES.forEach((frequency, at) => {
    const [tone, volume] = [audio.createOscillator(), audio.createGain()];
    const begin = audio.currentTime + at * NOTE_SECONDS;
    tone.frequency.value = frequency;
    volume.gain.setValueAtTime(0.3, begin);
    volume.gain.exponentialRampToValueAtTime(0.001, begin + NOTE_SECONDS);
    tone.connect(volume).connect(audio.destination);
    tone.start(begin);
    tone.stop(begin + NOTE_SECONDS);
  });
}

// Calls the visitor, if wanted. A notification replaces an earlier one with the same `tag`.
export function callVisitor(title, body, tag) {
  if (!isWanted()) return;
  ring();
  if (!hasNotifications || Notification.permission !== "granted") return;
  try {
    const shown = new Notification(title, { body, tag, requireInteraction: true });
    shown.addEventListener("click", () => {
      window.focus();
      shown.close();
    });
  } catch {
    // Browsers on phones show notifications of service workers only. The sound and the page's title
    // remain.
  }
}
