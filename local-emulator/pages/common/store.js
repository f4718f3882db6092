// Storage that is never in the way: where the browser refuses it, values live as long as the page.

const shut = new Map();

function of(storage) {
  const name = (key) => `${storage}:${key}`;
  return {
    get(key) {
      try {
        return JSON.parse(globalThis[storage].getItem(key));
      } catch {
        return shut.get(name(key)) ?? null;
      }
    },
    set(key, value) {
      try {
        globalThis[storage].setItem(key, JSON.stringify(value));
      } catch {
        shut.set(name(key), value);
      }
    },
    remove(key) {
      shut.delete(name(key));
      try {
        globalThis[storage].removeItem(key);
      } catch {
        // There is nothing to remove.
      }
    },
    keys() {
      try {
        return Object.keys(globalThis[storage]);
      } catch {
        return [];
      }
    },
  };
}

// For all tabs, and kept.
export const local = of("localStorage");
// For this tab alone: gone when it is closed, kept when it is reloaded.
export const tab = of("sessionStorage");
