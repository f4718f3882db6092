// Runs before the page is drawn, so that it never shows in the wrong colours: a classic script, because modules run later.
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const paint = () => {
    let chosen = null;
    try {
      chosen = JSON.parse(localStorage.getItem("theme"));
    } catch {
      // Storage is shut off, or holds something else: the system's choice holds.
    }
    root.dataset.bsTheme = chosen ?? (system.matches ? "dark" : "light");
  };
  paint();
  system.addEventListener("change", paint);
})();
