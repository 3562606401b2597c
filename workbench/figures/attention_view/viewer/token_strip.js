// The text, token by token.

class TokenStrip {
  constructor(view) {
    this.view = view;
    this.element = make("div", "wba-text");
    this.strip = make("div", "wba-strip");
    this.strip.setAttribute("role", "group");
    this.strip.setAttribute("aria-label", "Tokens: where each looks and who looks at it. Enter pins.");
    this.legend = make("div", "wba-legend");
    this.legend.setAttribute("aria-live", "polite");
    this.element.append(this.strip, this.legend);
    const at = (event) => this.posOf(event.target);
    const look = (pos) => view.look(pos === null ? null : { query: pos, key: pos, cell: false });
    this.strip.addEventListener("pointerover", (event) => at(event) !== null && look(at(event)));
    this.strip.addEventListener("pointerleave", () => look(null));
    this.strip.addEventListener("focusin", (event) => at(event) !== null && look(at(event)));
    this.strip.addEventListener("focusout", () => look(null));
    this.strip.addEventListener("click", (event) => at(event) !== null && view.pin(at(event)));
    this.strip.addEventListener("keydown", (event) => this.keyed(event));
  }

  posOf(target) {
    const chip = target.closest && target.closest("button.wba-chip");
    return chip ? Number(chip.dataset.pos) : null;
  }

  build() {
    const { query_tokens: queries, key_tokens: keys } = this.view.meta;
    const tokens = queries.length >= keys.length ? queries : keys;
    this.chips = tokens.map((token, pos) => {
      const text = visible(token);
      const chip = make("button", "wba-chip", text);
      chip.type = "button";
      chip.dataset.pos = pos;
      chip.tabIndex = pos ? -1 : 0;
      chip.title = `${pos}: ${text}`;
      chip.setAttribute("aria-label", `token ${pos}: ${text}`);
      return chip;
    });
    this.strip.replaceChildren(...this.chips);
    this.painted = [];
  }

  keyed(event) {
    const pos = this.posOf(event.target);
    const to = { ArrowRight: pos + 1, ArrowLeft: pos - 1, Home: 0, End: this.chips.length - 1 }[event.key];
    if (pos === null || to === undefined || !this.chips[to]) return;
    event.preventDefault();
    this.chips[pos].tabIndex = -1;
    this.chips[to].tabIndex = 0;
    this.chips[to].focus();
  }

  draw() {
    const { view } = this;
    const focus = view.focus();
    const lines = focus ? view.lines(focus) : null;
    const limit = view.limit(view.shown);
    this.chips.forEach((chip, pos) => {
      const paint = lines ? this.paint(lines.row[pos], lines.column[pos], limit) : "";
      if (this.painted[pos] !== paint) {
        chip.style.background = paint;
        this.painted[pos] = paint;
      }
      chip.classList.toggle("wba-query", Boolean(focus) && focus.query === pos);
      chip.classList.toggle("wba-key", Boolean(focus) && focus.key === pos);
      chip.setAttribute("aria-pressed", String(view.pinned === pos));
    });
    this.describe(focus, lines);
    if (focus && focus.cell) this.reveal(this.chips[focus.query]);
  }

  /** Scroll the strip, and nothing else, to a token that the crosshair is on. */
  reveal(chip) {
    const { strip } = this;
    if (!chip || strip.scrollHeight <= strip.clientHeight) return;
    const top = chip.offsetTop - strip.offsetTop, bottom = top + chip.offsetHeight;
    if (top < strip.scrollTop) strip.scrollTop = top - 6;
    else if (bottom > strip.scrollTop + strip.clientHeight) strip.scrollTop = bottom - strip.clientHeight + 6;
  }

  /** Upper half: how much the token in focus looks here. Lower half: how much this token looks at it. */
  paint(row, column, limit) {
    const layers = [];
    const band = (value, name, place) => {
      const size = Math.min(Math.abs(value) / limit, 1);
      const strength = Math.round(68 * (this.view.colour.root ? Math.sqrt(size) : size));
      if (strength < 2) return;
      const ink = `color-mix(in srgb, var(--wba-${name}) ${strength}%, transparent)`;
      // Negative values are striped: the hue already says row or column.
      const fill = value < 0 ? `repeating-linear-gradient(135deg, ${ink} 0 3px, transparent 3px 6px)` : `linear-gradient(${ink}, ${ink})`;
      layers.push(`${fill} ${place} no-repeat`);
    };
    const has = (value) => value !== undefined && !Number.isNaN(value);
    const both = has(row) && has(column);
    if (has(row)) band(row, "row", both ? "0 0 / 100% 50%" : "0 0 / 100% 100%");
    if (has(column)) band(column, "column", both ? "0 100% / 100% 50%" : "0 0 / 100% 100%");
    return layers.length ? [...layers, "var(--wba-panel)"].join(", ") : "";
  }

  describe(focus, lines) {
    if (!focus) {
      this.legend.replaceChildren(make("span", "wba-hint", "Point at a token: where it looks, and who looks at it. Click pins it."));
      this.legend.dataset.exact = "";
      return;
    }
    const tokens = this.chips.map((chip) => chip.textContent);
    const strongest = (line, from) => {
      const order = line.map((value, pos) => [value, pos]).filter(([value]) => !Number.isNaN(value) && value !== 0);
      order.sort((a, b) => Math.abs(b[0]) - Math.abs(a[0]));
      return order.slice(0, 3).map(([value, pos]) => `${short(tokens[pos] ?? from, 16)}@${pos} ${number(value)}`).join("   ") || "nothing";
    };
    const part = (name, text, line) => {
      const span = make("span", `wba-legend-${name}`);
      span.append(make("i", "wba-swatch"), make("b", "", text), make("span", "", line));
      return span;
    };
    const parts = [];
    if (lines.row.length) parts.push(part("row", `“${short(tokens[focus.query] ?? "", 16)}” looks at`, strongest(lines.row, "")));
    if (lines.column.length) parts.push(part("column", `“${short(tokens[focus.key] ?? "", 16)}” is looked at by`, strongest(lines.column, "")));
    const levels = lines.levels ? `≈ read from the picture (${lines.levels} levels)` : "loading";
    parts.push(make("span", "wba-exact", lines.exact ? "exact" : levels));
    this.legend.dataset.exact = String(lines.exact);
    this.legend.replaceChildren(...parts);
  }
}
