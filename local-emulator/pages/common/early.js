// Runs before the first paint, so that the page never shows the wrong colours. It is a classic
// script, because modules run later.
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const paint = () => {
    let chosen = null;
    try {
      chosen = JSON.parse(localStorage.getItem("theme"));
    } catch {
      // Storage is disabled or holds another value: use the system's choice.
    }
    root.dataset.bsTheme = chosen ?? (system.matches ? "dark" : "light");
  };
  paint();
  system.addEventListener("change", paint);
})();
