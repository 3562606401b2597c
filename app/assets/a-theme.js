// Light or dark: the visitor's choice, else the system's. Set before anything is drawn, so nothing flashes.
// Mantine reads the same key when it starts.
(function () {
  const KEY = "mantine-color-scheme-value";
  const root = document.documentElement;
  const system = () => (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");

  function stored() {
    try {
      return localStorage.getItem(KEY);
    } catch (error) {
      return null; // storage may be forbidden; the choice then lasts as long as the page
    }
  }

  const start = stored();
  root.setAttribute("data-mantine-color-scheme", start === "light" || start === "dark" ? start : system());

  // Tables read their own word for it.
  const tell = () => root.setAttribute("data-ag-theme-mode", root.getAttribute("data-mantine-color-scheme"));
  new MutationObserver(tell).observe(root, { attributeFilter: ["data-mantine-color-scheme"] });
  tell();

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.workbench = {
    theme() {
      const next = root.getAttribute("data-mantine-color-scheme") === "dark" ? "light" : "dark";
      try {
        localStorage.setItem(KEY, next);
      } catch (error) {
        // see above
      }
      return next;
    },
  };
})();
