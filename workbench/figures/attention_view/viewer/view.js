// The whole: heads, large view and tokens, and what happens between them.

class View {
  constructor(element, source, options) {
    this.host = element;
    this.root = make("div", "wba");
    this.options = {};
    this.pinned = null;
    this.locked = false;
    this.shown = { layer: 0, head: 0 };
    this.looking = null;
    this.ownRange = null;
    this.rootScale = null;
    this.generation = 0;
    this.styles = new Map();
    element.replaceChildren(this.root);
    this.root.addEventListener("keydown", (event) => event.key === "Escape" && this.release());
    this.fetchExact = debounced((layer, head, pos) => this.store.fetchExact(layer, head, pos), 60);
    this.fetchOther = debounced((layer, head, pos) => this.store.fetchExact(layer, head, pos), 60);
    this.emitSoon = debounced(() => this.emit(), 150);
    this.resized = new ResizeObserver(() => this.layout());
    this.resized.observe(element);
    this.update(source, options);
  }

  // -- life

  update(source, options = {}) {
    this.options = { ...this.options, ...options };
    if (options.theme || !this.root.dataset.wbaTheme) this.setTheme();
    if (source && source !== this.source) {
      this.source = source;
      this.load();
    } else if (this.meta) {
      if (options.state) this.setState(options.state);
      this.options.state = null;
      this.redraw();
    }
  }

  setTheme() {
    const dark = typeof matchMedia === "function" && matchMedia("(prefers-color-scheme: dark)").matches;
    this.root.dataset.wbaTheme = this.options.theme || (dark ? "dark" : "light");
    this.styles.clear();
  }

  async load() {
    const generation = ++this.generation;
    if (!this.meta) this.root.replaceChildren(make("div", "wba-wait", "Loading attention …"));
    this.root.setAttribute("aria-busy", "true");
    try {
      const meta = await this.source.meta();
      if (generation !== this.generation) return;
      this.meta = checkedMeta(meta);
      this.build();
    } catch (error) {
      if (generation !== this.generation) return;
      this.meta = null;
      if (this.store) this.store.closed = true;
      this.store = null;
      const retry = make("button", "wba-retry", "Retry");
      retry.type = "button";
      retry.addEventListener("click", () => this.load());
      const box = make("div", "wba-failed");
      box.setAttribute("role", "alert");
      box.append(make("span", "", `The attention maps did not load: ${short(message(error), 240)}`), retry);
      this.root.replaceChildren(box);
    }
    this.root.setAttribute("aria-busy", "false");
  }

  build() {
    const { meta } = this;
    const focused = this.focusedPart();
    if (!this.store || !this.store.serves(this.source, meta.layers.length)) {
      if (this.store) this.store.closed = true;
      this.store = new Store(this.source, meta.layers.length, (layer) => this.arrived(layer));
    }
    if (this.grid && this.grid.observer) this.grid.observer.disconnect();
    this.strip = new TokenStrip(this);
    this.grid = new HeadGrid(this);
    this.large = new LargeView(this);
    this.body = make("div", "wba-body");
    this.body.append(this.grid.element, this.large.element);
    this.root.replaceChildren(this.bar(), this.strip.element, this.body);
    this.root.dataset.kind = meta.kind;
    this.adopt({ ...this.getState(), ...this.options.state });
    this.options.state = null; // said once; a later source keeps what the reader has chosen
    this.recolour();
    this.strip.build();
    this.grid.build();
    this.grid.side = 0;
    this.layout();
    this.show();
    const again = focused && this.root.querySelector(focused);
    if (again) again.focus({ preventScroll: true });
  }

  /** A selector of the head or token that holds the keyboard focus, to give it back after a rebuild. */
  focusedPart() {
    const active = this.root.contains(document.activeElement) ? document.activeElement : null;
    if (!active) return null;
    const { layer, head, pos } = active.dataset;
    if (active.classList.contains("wba-head")) return `.wba-head[data-layer="${layer}"][data-head="${head}"]`;
    return active.classList.contains("wba-chip") ? `.wba-chip[data-pos="${pos}"]` : null;
  }

  bar() {
    const bar = make("div", "wba-bar");
    const kinds = { pattern: "attention pattern", scores: "attention scores", mean: "mean attention", difference: "difference of attention" };
    const heading = make("div", "wba-heading", this.meta.title || kinds[this.meta.kind] || this.meta.kind);
    heading.title = this.meta.precision || "";
    const toggle = (text, title, get, set) => {
      const button = make("button", "wba-toggle", text);
      button.type = "button";
      button.title = title;
      button.setAttribute("aria-pressed", String(get()));
      button.addEventListener("click", () => {
        set(!get());
        button.setAttribute("aria-pressed", String(get()));
        this.recolour();
        this.redraw();
      });
      return button;
    };
    bar.append(
      heading,
      toggle("√ scale", "colour by the square root: faint cells become visible", () => this.usesRoot(), (on) => { this.rootScale = on; }),
      toggle("range per head", "colours up to each head's own maximum", () => this.usesOwnRange(), (on) => { this.ownRange = on; }),
    );
    return bar;
  }

  usesRoot() {
    return this.rootScale ?? !this.meta.signed;
  }

  /** Heads differ too much in the size of their scores for one range to show them all. */
  usesOwnRange() {
    return this.ownRange ?? this.meta.kind === "scores";
  }

  recolour() {
    this.colour = { signed: this.meta.signed, root: this.usesRoot() };
    this.words = ramp((this.meta.signed ? DIVERGING : SEQUENTIAL)[this.root.dataset.wbaTheme]);
  }

  layout() {
    if (!this.meta) return;
    const width = this.root.clientWidth;
    if (!width) return;
    this.dpr = globalThis.devicePixelRatio || 1;
    const stacked = width < 720;
    const top = this.root.getBoundingClientRect().top + globalThis.scrollY;
    const chrome = this.body.offsetTop;
    const free = globalThis.innerHeight - top - chrome - 16;
    const height = this.options.height ? this.options.height - chrome : free > 360 ? Math.min(free, 760) : 520;
    const left = stacked ? width : this.grid.wanted(width, height);
    this.root.classList.toggle("wba-stacked", stacked);
    this.body.style.gridTemplateColumns = stacked ? "minmax(0, 1fr)" : `${left}px minmax(0, 1fr)`;
    this.grid.element.style.maxHeight = `${stacked ? 300 : height}px`;
    this.grid.layout(left - 12);
    this.large.layout((stacked ? width : width - left - 20), Math.max(220, (stacked ? 480 : height) - 36));
    this.large.draw();
  }

  destroy() {
    this.generation += 1;
    this.resized.disconnect();
    if (this.store) this.store.closed = true;
    if (this.grid && this.grid.observer) this.grid.observer.disconnect();
    for (const timer of [this.fetchExact, this.fetchOther, this.emitSoon]) timer.cancel();
    this.root.remove();
  }

  // -- state

  getState() {
    return { ...this.shown, locked: this.locked, pos: this.pinned };
  }

  /** Take over what of a state exists here. */
  adopt(state) {
    const { layers } = this.meta;
    let layer = Number.isInteger(state.layer) && layers[state.layer] ? state.layer : layers.findIndex((heads) => heads > 0);
    layer = Math.max(layer, 0);
    const head = Number.isInteger(state.head) && state.head >= 0 && state.head < layers[layer] ? state.head : 0;
    const tokens = Math.max(this.meta.query_tokens.length, this.meta.key_tokens.length);
    this.shown = { layer, head };
    this.locked = Boolean(state.locked);
    this.pinned = Number.isInteger(state.pos) && state.pos >= 0 && state.pos < tokens ? state.pos : null;
  }

  setState(state) {
    if (!this.meta) {
      this.options.state = { ...this.options.state, ...state };
      return;
    }
    this.emitSoon.cancel(); // the caller knows better than the preview before
    this.adopt({ ...this.getState(), ...state });
    this.show();
  }

  emit() {
    this.emitSoon.cancel();
    if (this.options.onState) this.options.onState(this.getState());
  }

  preview(at) {
    if (this.locked || (at.layer === this.shown.layer && at.head === this.shown.head)) return;
    this.shown = at;
    this.show();
    this.emitSoon();
  }

  /** From the keyboard: go there; a lock goes along. */
  move(at) {
    this.shown = at;
    this.show();
    this.emitSoon();
  }

  toggleLock(at) {
    const same = at.layer === this.shown.layer && at.head === this.shown.head;
    this.locked = !(this.locked && same);
    this.shown = at;
    this.show();
    this.emit();
  }

  release() {
    if (!this.locked && this.pinned === null) return;
    this.locked = false;
    this.pinned = null;
    this.show();
    this.emit();
  }

  pin(pos) {
    this.pinned = this.pinned === pos ? null : pos;
    this.refocus();
    this.emit();
  }

  look(focus) {
    const [a, b] = [this.looking, focus];
    if (a === b || (a && b && a.query === b.query && a.key === b.key && a.cell === b.cell)) return;
    this.looking = focus;
    this.refocus();
  }

  /** The row and column in focus: pointed at, else pinned. */
  focus() {
    return this.looking || (this.pinned === null ? null : { query: this.pinned, key: this.pinned, cell: false });
  }

  // -- drawing

  show() {
    this.store.need(this.shown.layer, true);
    this.grid.mark();
    this.large.draw();
    this.strip.draw();
    this.wantExact();
  }

  refocus() {
    this.large.drawFocus();
    this.strip.draw();
    this.wantExact();
  }

  redraw() {
    this.recolour();
    this.layout();
    this.grid.drawAll();
    this.large.draw();
    this.strip.draw();
  }

  arrived(layer) {
    if (layer >= 0) this.grid.drawLayer(layer);
    if (layer === this.shown.layer) this.large.draw();
    if (layer === this.shown.layer || layer < 0) {
      this.large.drawFocus();
      this.strip.draw();
    }
  }

  wantExact() {
    const focus = this.focus();
    if (!focus) return;
    const { layer, head } = this.shown;
    this.fetchExact(layer, head, focus.query);
    if (focus.key !== focus.query) this.fetchOther(layer, head, focus.key);
  }

  /** Row and column in focus: exact if they have come, else read from the picture. */
  lines({ query, key }) {
    const { layer, head } = this.shown;
    const [byQuery, byKey] = [this.store.exact(layer, head, query), this.store.exact(layer, head, key)];
    const data = this.store.layer(layer);
    const row = byQuery ? byQuery.row : data && query < data.queries ? data.row(head, query) : [];
    const column = byKey ? byKey.column : data && key < data.keys ? data.column(head, key) : [];
    return { row, column, exact: Boolean(byQuery && byKey), levels: data ? data.levels : 0 };
  }

  cell(query, key) {
    const { layer, head } = this.shown;
    const found = this.store.exact(layer, head, query);
    const data = this.store.layer(layer);
    const value = found ? found.row[key] : data ? data.value(head, query, key) : NaN;
    const exists = Boolean(found || data) && !Number.isNaN(value);
    return { value, exact: Boolean(found), exists };
  }

  /** What a head does; a difference shows what changed, which no badge measures. */
  badges(layer, head) {
    if (this.meta.kind === "difference") return [];
    return (this.meta.badges && this.meta.badges[`${layer}.${head}`]) || [];
  }

  limit({ layer, head }) {
    const data = this.usesOwnRange() && this.store.layer(layer);
    return (data && data.limits[head]) || this.meta.limit;
  }

  css(name) {
    if (!this.styles.has(name)) this.styles.set(name, getComputedStyle(this.root).getPropertyValue(name).trim());
    return this.styles.get(name);
  }

  resize(canvas, width, height) {
    const [w, h] = [Math.round(width * this.dpr), Math.round(height * this.dpr)];
    if (canvas.width !== w) canvas.width = w;
    if (canvas.height !== h) canvas.height = h;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }

  /** A head, one pixel per cell or block of cells, off screen. */
  picture(data, head, pixels) {
    const side = Math.max(1, Math.ceil(Math.max(data.queries, data.keys) / Math.max(pixels, 1)));
    const { codes, rows, columns } = data.pooled(head, side);
    const limit = (this.usesOwnRange() && data.limits[head]) || this.meta.limit;
    const values = data.table(head);
    const table = new Uint32Array(256);
    for (let code = 0; code < MISSING; code++) {
      if (!Number.isNaN(values[code])) table[code] = this.words[shade(values[code], limit, this.colour)];
    }
    const canvas = this.scratch || (this.scratch = document.createElement("canvas"));
    canvas.width = columns;
    canvas.height = rows;
    const context = canvas.getContext("2d");
    const image = context.createImageData(columns, rows);
    const pixelsOut = new Uint32Array(image.data.buffer);
    for (let i = 0; i < codes.length; i++) pixelsOut[i] = table[codes[i]];
    context.putImageData(image, 0, 0);
    // The last block may reach past the last token.
    return { canvas, scaleX: (columns * side) / data.keys, scaleY: (rows * side) / data.queries };
  }

  paint(canvas, data, head, width) {
    const height = width;
    this.resize(canvas, width, height);
    const context = canvas.getContext("2d");
    const picture = this.picture(data, head, width * this.dpr);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = false;
    context.drawImage(picture.canvas, 0, 0, canvas.width * picture.scaleX, canvas.height * picture.scaleY);
  }

  /** Cells that do not exist are hatched, so that they are not read as zero. */
  hatch(context) {
    const tile = document.createElement("canvas");
    tile.width = tile.height = 8;
    const ink = tile.getContext("2d");
    ink.fillStyle = this.css("--wba-void");
    ink.fillRect(0, 0, 8, 8);
    ink.strokeStyle = this.css("--wba-hatch");
    ink.lineWidth = 1;
    for (const shift of [-8, 0, 8]) {
      ink.beginPath();
      ink.moveTo(shift, 8);
      ink.lineTo(shift + 8, 0);
      ink.stroke();
    }
    return context.createPattern(tile, "repeat");
  }
}

function checkedMeta(meta) {
  const good = meta && meta.format === 1 && Array.isArray(meta.layers) && Array.isArray(meta.query_tokens) && Array.isArray(meta.key_tokens);
  if (!good) throw new Error("the description of the maps is not one this viewer knows");
  return { ...meta, limit: meta.limit > 0 ? meta.limit : 1 };
}
