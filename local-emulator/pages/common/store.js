// Storage that never throws: if the browser refuses access, values live as long as the page.

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

// Shared by all tabs and permanent.
export const local = of("localStorage");
// For this tab only: kept on reload, lost when the tab is closed.
export const tab = of("sessionStorage");
