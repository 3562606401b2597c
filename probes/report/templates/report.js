"use strict";
(() => {
  const root = document.documentElement;
  const shared = JSON.parse(document.getElementById("template").textContent);
  const config = { showSendToCloud: false, displaylogo: false, responsive: true };
  const drawn = new Set();

  function draw(box) {
    if (drawn.has(box)) return;
    drawn.add(box);
    const figure = JSON.parse(box.nextElementSibling.textContent);
    const layout = { template: shared, ...figure.layout };
    delete layout.width;
    Plotly.newPlot(box, figure.data, layout, config);
  }

  const boxes = [...document.querySelectorAll(".plot")];
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "500px" });
  boxes.forEach((box) => seen.observe(box));
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((one) => { one.open = true; });
    boxes.forEach(draw);
  });

  const setTheme = (isDark) => { root.dataset.theme = isDark ? "dark" : "light"; };
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  setTheme(prefersDark.matches);
  prefersDark.addEventListener("change", (event) => setTheme(event.matches));
  document.getElementById("theme").addEventListener("click", () => setTheme(root.dataset.theme !== "dark"));

  // A click on a column's head sorts by it; what is empty stays last.
  const words = new Intl.Collator("en", { numeric: true });
  const read = (cell) => parseFloat(cell.replace(/[,<]/g, ""));
  function sort(head) {
    const row = head.parentElement;
    const column = [...row.children].indexOf(head);
    const isNumber = head.classList.contains("n");
    const was = head.getAttribute("aria-sort");
    const sign = was === (isNumber ? "descending" : "ascending") ? (isNumber ? 1 : -1) : (isNumber ? -1 : 1);
    for (const other of row.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const body = head.closest("table").tBodies[0];
    const text = (line) => line.children[column].textContent;
    const isEmpty = (line) => (isNumber ? Number.isNaN(read(text(line))) : text(line) === "");
    const lines = [...body.rows].sort((a, b) => {
      if (isEmpty(a) || isEmpty(b)) return isEmpty(a) - isEmpty(b);
      return sign * (isNumber ? read(text(a)) - read(text(b)) : words.compare(text(a), text(b)));
    });
    body.append(...lines);
  }
  document.querySelectorAll("th").forEach((head) => {
    head.tabIndex = 0;
    head.addEventListener("click", () => sort(head));
    head.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(head); }
    });
  });
})();
