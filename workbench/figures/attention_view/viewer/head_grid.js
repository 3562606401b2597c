// All heads as thumbnails.

class HeadGrid {
  constructor(view) {
    this.view = view;
    this.element = make("div", "wba-grid");
    this.element.setAttribute("role", "group");
    this.element.setAttribute("aria-label", "Heads: rows are layers, columns are heads. Enter locks, Escape unlocks.");
    this.rows = [];
    const at = (event) => this.headOf(event.target);
    this.element.addEventListener("pointerover", (event) => event.pointerType !== "touch" && at(event) && view.preview(at(event)));
    this.element.addEventListener("focusin", (event) => at(event) && view.preview(at(event)));
    this.element.addEventListener("click", (event) => this.clicked(event));
    this.element.addEventListener("keydown", (event) => this.keyed(event));
  }

  headOf(target) {
    const button = target.closest && target.closest("button.wba-head");
    return button ? { layer: Number(button.dataset.layer), head: Number(button.dataset.head) } : null;
  }

  build() {
    const { meta } = this.view;
    this.columns = Math.max(1, ...meta.layers);
    this.element.replaceChildren();
    if (this.observer) this.observer.disconnect();
    this.observer = new IntersectionObserver((entries) => this.seen(entries), { root: this.element, rootMargin: "160px" });
    const header = make("div", "wba-row wba-heads");
    header.append(make("span", "wba-corner", "layer"));
    for (let head = 0; head < this.columns; head++) header.append(make("span", "wba-head-label", `head ${head}`));
    this.element.append(header);
    this.rows = meta.layers.map((heads, layer) => this.buildRow(layer, heads));
    this.element.append(...this.rows.map((row) => row.element));
    this.rows.forEach((row) => row.buttons.length && this.observer.observe(row.element));
  }

  buildRow(layer, heads) {
    const element = make("div", "wba-row");
    element.dataset.layer = layer;
    element.append(make("span", "wba-layer-label", String(layer)));
    const buttons = Array.from({ length: heads }, (_, head) => this.buildHead(layer, head));
    if (heads) element.append(...buttons);
    else element.append(make("span", "wba-note", "no attention in this layer"));
    const error = make("div", "wba-layer-error");
    error.hidden = true;
    element.append(error);
    return { element, buttons, error };
  }

  buildHead(layer, head) {
    const button = make("button", "wba-head");
    button.type = "button";
    button.tabIndex = -1;
    Object.assign(button.dataset, { layer, head });
    button.append(make("canvas", "wba-thumb"));
    const badges = this.view.badges(layer, head);
    const spoken = badges.map((badge) => `${badge.label} ${badgeValue(badge)}`);
    button.setAttribute("aria-label", [`layer ${layer} head ${head}`, ...spoken].join(", "));
    const where = badges.length ? [MEASURED] : [];
    button.title = [`head ${layer}.${head}`, ...badges.map(badgeText), ...where].join("\n");
    if (badges.length) {
      const badge = make("span", "wba-badge");
      badge.append(make("span", "wba-badge-label", badges[0].label), make("span", "wba-badge-value", badgeValue(badges[0])));
      button.append(badge);
    }
    return button;
  }

  /** Thumbnails as large as the room allows. */
  layout(width) {
    const side = clamp(Math.floor((width - 44) / this.columns) - 8, 24, 112);
    if (side !== this.side) {
      this.side = side;
      this.element.style.setProperty("--wba-side", `${side}px`);
      this.element.style.setProperty("--wba-columns", this.columns);
      this.element.classList.toggle("wba-small", side < 72);
      this.element.querySelectorAll(".wba-head-label").forEach((label, head) => {
        label.textContent = side < 60 ? String(head) : `head ${head}`;
      });
      this.nameBadges();
      this.drawAll();
    }
  }

  /** Names in full where they fit, else short ones; the button's title always has them in full. */
  nameBadges() {
    this.rows.forEach((row, layer) => row.buttons.forEach((button, head) => {
      const label = button.querySelector(".wba-badge-label");
      if (label) label.textContent = badgeName(this.view.badges(layer, head)[0], this.side < 60);
    }));
  }

  /** Width of the grid: what the square beside it leaves, within what thumbnails need and can use. */
  wanted(width, height) {
    const most = Math.min(Math.floor(width * 0.47), 56 + this.columns * 120);
    const least = Math.min(most, 56 + this.columns * 84);
    return clamp(width - height - 100, least, most);
  }

  seen(entries) {
    for (const entry of entries) {
      const layer = Number(entry.target.dataset.layer);
      if (entry.isIntersecting) this.view.store.need(layer, false);
      else this.view.store.forget(layer);
    }
    this.mark();
  }

  drawAll() {
    this.rows.forEach((_, layer) => this.drawLayer(layer));
  }

  drawLayer(layer) {
    const { status, error } = this.view.store.layers[layer];
    const row = this.rows[layer];
    row.element.dataset.status = status;
    row.element.setAttribute("aria-busy", String(status === "loading"));
    row.error.hidden = status !== "error";
    if (status === "error") this.showError(row, layer, error);
    if (status !== "ready" || !this.side) return;
    const data = this.view.store.layer(layer);
    row.buttons.forEach((button, head) => {
      if (head < data.heads) this.view.paint(button.firstChild, data, head, this.side);
    });
  }

  showError(row, layer, error) {
    const retry = make("button", "wba-retry", "Retry");
    retry.type = "button";
    retry.addEventListener("click", () => this.view.store.retry(layer));
    row.error.replaceChildren(make("span", "", `Layer ${layer} did not load: ${short(error, 160)}`), retry);
    row.error.setAttribute("role", "alert");
  }

  /** Show which head is drawn, which is locked, and where the keyboard enters. */
  mark() {
    const { shown, locked } = this.view;
    this.rows.forEach((row, layer) => row.buttons.forEach((button, head) => {
      const here = layer === shown.layer && head === shown.head;
      button.classList.toggle("wba-shown", here);
      button.setAttribute("aria-pressed", String(here && locked));
      button.tabIndex = here ? 0 : -1;
    }));
  }

  clicked(event) {
    const at = this.headOf(event.target);
    if (at) this.view.toggleLock(at);
  }

  keyed(event) {
    const at = this.headOf(event.target);
    if (!at) return;
    const next = this.neighbour(at, event.key, event.ctrlKey || event.metaKey);
    if (!next) return;
    event.preventDefault();
    this.view.move(next);
    const button = this.rows[next.layer].buttons[next.head];
    button.focus({ preventScroll: true });
    button.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  neighbour({ layer, head }, key, far) {
    const heads = (l) => this.rows[l].buttons.length;
    const vertical = (step) => {
      for (let l = layer + step; l >= 0 && l < this.rows.length; l += step) {
        if (heads(l)) return { layer: l, head: Math.min(head, heads(l) - 1) };
      }
      return null;
    };
    switch (key) {
      case "ArrowRight": return head + 1 < heads(layer) ? { layer, head: head + 1 } : null;
      case "ArrowLeft": return head > 0 ? { layer, head: head - 1 } : null;
      case "ArrowDown": return vertical(1);
      case "ArrowUp": return vertical(-1);
      case "Home": return { layer: far ? this.rows.findIndex((r) => r.buttons.length) : layer, head: 0 };
      case "End": {
        const last = far ? this.rows.length - 1 - [...this.rows].reverse().findIndex((r) => r.buttons.length) : layer;
        return { layer: last, head: heads(last) - 1 };
      }
      default: return null;
    }
  }
}
