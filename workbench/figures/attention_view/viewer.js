/* Attention viewer: heads as thumbnails, one head large, the text itself as a strip of tokens.
 *
 * A plain script: sets globalThis.WorkbenchAttention = { mount, render, decode, sources, … }.
 *
 *   const view = WorkbenchAttention.mount(element, source, options);
 *   source   { meta() -> Promise<object>, layer(l) -> Promise<bytes>, cross(l, h, pos) -> Promise<{row, column}> }
 *   options  { theme: "light" | "dark", state: {layer, head, locked, pos}, height, onState(state) }
 *   view     { update(source, options), setState(state), getState(), destroy() }
 *
 * Every text of the model reaches the page by textContent or fillText only: a token is never markup.
 */
(function () {
  "use strict";

  // ---------------------------------------------------------------- colours

  // Zero is the paper. The anchors are those of workbench/figures/theme.py (a test compares them).
  const SEQUENTIAL = {
    light: ["#ffffff", "#deebf7", "#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08519c", "#08306b"],
    dark: ["#171a21", "#1b2c45", "#1d426b", "#1f5a92", "#2b77b5", "#4d98cf", "#80b9e2", "#b8d9f1", "#f4faff"],
  };
  const DIVERGING = {
    light: ["#7f3b08", "#b35806", "#e08214", "#fdb863", "#fee0b6", "#ffffff", "#d1e5f0", "#92c5de", "#4393c3", "#2166ac", "#053061"],
    dark: ["#ffe3bf", "#fdb863", "#e08214", "#a85a0c", "#553213", "#171a21", "#18344f", "#1f5f94", "#3f93cc", "#86c1e6", "#d9efff"],
  };
  const COLOURS = 255;
  const MISSING = 255;

  function channels(hex) {
    return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  }

  /** Colours between the anchors, as 0xAABBGGRR words: an odd number, so that zero has one of its own. */
  function ramp(anchors) {
    const stops = anchors.map(channels);
    const words = new Uint32Array(COLOURS);
    for (let i = 0; i < COLOURS; i++) {
      const at = (i / (COLOURS - 1)) * (stops.length - 1);
      const low = Math.min(Math.floor(at), stops.length - 2);
      const [r, g, b] = stops[low].map((c, j) => Math.round(c + (stops[low + 1][j] - c) * (at - low)));
      words[i] = ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
    }
    return words;
  }

  /** Place of a value on the ramp; for signed maps zero lies in the middle. */
  function shade(value, limit, colour) {
    let size = Math.min(Math.abs(value) / limit, 1);
    if (colour.root) size = Math.sqrt(size);
    return Math.round((colour.signed ? (1 + Math.sign(value) * size) / 2 : size) * (COLOURS - 1));
  }

  // ---------------------------------------------------------------- payload

  async function gunzip(bytes) {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  function asBytes(buffer) {
    if (ArrayBuffer.isView(buffer)) return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
    return new Uint8Array(buffer);
  }

  /** Read one layer (see payload.py); gzip that a server left on is taken off. */
  async function decode(buffer) {
    let bytes = asBytes(buffer);
    if (bytes[0] === 0x1f && bytes[1] === 0x8b) bytes = await gunzip(bytes);
    if (String.fromCharCode(...bytes.subarray(0, 4)) !== "WBA1") throw new Error("this is not an attention payload");
    const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(4, true);
    if (8 + length > bytes.length) throw new Error("the payload ends within its header");
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
    return new Layer(header, bytes.subarray(8 + length));
  }

  class Layer {
    constructor(header, codes) {
      const { heads, queries, keys, causal, levels, limits, signed, scale } = header;
      const whole = [heads, queries, keys, levels].every((n) => Number.isInteger(n) && n > 0);
      const scales = ["sqrt", "linear"];
      if (header.format !== 1 || !whole || !scales.includes(scale) || !Array.isArray(limits) || limits.length !== heads || (causal && queries !== keys)) {
        throw new Error("the payload's header is not one this viewer knows");
      }
      this.cells = causal ? (queries * (queries + 1)) / 2 : queries * keys;
      if (codes.length !== heads * this.cells) {
        throw new Error(`the payload has ${codes.length} cells, its header ${heads * this.cells}`);
      }
      Object.assign(this, { heads, queries, keys, causal, levels, limits, signed, scale, codes, values: new Map() });
    }

    start(head, query) {
      return head * this.cells + (this.causal ? (query * (query + 1)) / 2 : query * this.keys);
    }

    code(head, query, key) {
      return this.causal && key > query ? MISSING : this.codes[this.start(head, query) + key];
    }

    /** The value of every code, for one head. */
    table(head) {
      if (!this.values.has(head)) {
        const table = new Float32Array(256).fill(NaN);
        const steps = this.signed ? 2 * this.levels : this.levels;
        for (let code = 0; code <= Math.min(steps, 254); code++) {
          const step = (this.signed ? code - this.levels : code) / this.levels;
          table[code] = this.limits[head] * (this.scale === "sqrt" ? Math.sign(step) * step * step : step);
        }
        this.values.set(head, table);
      }
      return this.values.get(head);
    }

    value(head, query, key) {
      return this.table(head)[this.code(head, query, key)];
    }

    row(head, query) {
      return Array.from({ length: this.keys }, (_, key) => this.value(head, query, key));
    }

    column(head, key) {
      return Array.from({ length: this.queries }, (_, query) => this.value(head, query, key));
    }

    /** Codes in blocks of side × side, each its strongest cell: a single bright cell survives. */
    pooled(head, side) {
      const rows = Math.ceil(this.queries / side), columns = Math.ceil(this.keys / side);
      const out = new Uint8Array(rows * columns).fill(MISSING);
      const zero = this.signed ? this.levels : 0;
      for (let query = 0; query < this.queries; query++) {
        const from = this.start(head, query), to = Math.floor(query / side) * columns;
        const n = this.causal ? query + 1 : this.keys;
        if (side === 1) {
          out.set(this.codes.subarray(from, from + n), to);
          continue;
        }
        for (let key = 0; key < n; key++) {
          const code = this.codes[from + key], at = to + ((key / side) | 0);
          if (code === MISSING) continue;
          if (out[at] === MISSING || Math.abs(code - zero) > Math.abs(out[at] - zero)) out[at] = code;
        }
      }
      return { codes: out, rows, columns };
    }
  }

  // ---------------------------------------------------------------- words and small DOM

  const VISIBLE = { " ": "·", "\n": "↵", "\t": "⇥", "\r": "␍", "\u00a0": "⍽" };
  const UNSEEN = /[\u0000-\u001f\u007f-\u00a0\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff ]/g;

  /** A token as it is read: whitespace, control and direction characters become visible signs. */
  function visible(token) {
    if (token === "") return "∅";
    return token.replace(UNSEEN, (c) => VISIBLE[c] || `⟨${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
  }

  function short(text, length) {
    const letters = Array.from(text);
    return letters.length <= length ? text : letters.slice(0, length - 1).join("") + "…";
  }

  function number(value, digits = 3) {
    if (value === null || value === undefined || Number.isNaN(value)) return "—";
    const size = Math.abs(value);
    let text;
    if (size === 0) text = "0";
    else if (size < 0.001 || size >= 1e5) text = size.toExponential(1);
    else text = size >= 1 ? size.toPrecision(Math.max(digits, 1)) : size.toFixed(digits + (size < 0.1 ? 1 : 0));
    return (value < 0 ? "−" : "") + text;
  }

  function tick(value) {
    const size = Math.abs(value);
    const text = size === 0 ? "0" : size < 0.001 || size >= 1e4 ? size.toExponential(0) : String(Number(size.toPrecision(2)));
    return (value < 0 ? "−" : "") + text;
  }

  function make(tag, name, text) {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function badgeText(badge) {
    const chance = badge.chance === undefined || badge.chance === null ? "" : ` (chance ${badge.chance.toFixed(2)})`;
    return `${badge.label} ${badgeValue(badge)}${chance}`;
  }

  function badgeValue(badge) {
    return typeof badge.value === "number" ? badge.value.toFixed(2).replace("-", "−") : "";
  }

  function message(error) {
    return (error && error.message) || String(error);
  }

  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

  /** Run `work` once, `wait` ms after the last call. */
  function debounced(work, wait) {
    let timer = 0;
    const run = (...given) => {
      clearTimeout(timer);
      timer = setTimeout(() => work(...given), wait);
    };
    run.cancel = () => clearTimeout(timer);
    return run;
  }

  // ---------------------------------------------------------------- the layers, fetched as they are needed

  class Store {
    constructor(source, count, onChange) {
      Object.assign(this, { source, onChange, waiting: [], active: 0, closed: false });
      this.layers = Array.from({ length: count }, () => ({ status: "idle", data: null, error: null }));
      this.lines = new Map();
    }

    /** Whether another source would give the same numbers, so that what is here can stay. */
    serves(source, count) {
      return source.layer === this.source.layer && source.cross === this.source.cross && count === this.layers.length;
    }

    layer(index) {
      const layer = this.layers[index];
      return layer && layer.status === "ready" ? layer.data : null;
    }

    need(index, urgent) {
      const layer = this.layers[index];
      if (!layer || layer.status === "ready" || layer.status === "loading" || layer.status === "error") return;
      this.waiting = this.waiting.filter((i) => i !== index);
      if (urgent) this.waiting.unshift(index);
      else this.waiting.push(index);
      layer.status = "queued";
      this.pump();
    }

    /** A row that was scrolled past before its turn came need not be fetched. */
    forget(index) {
      if (this.layers[index].status !== "queued") return;
      this.waiting = this.waiting.filter((i) => i !== index);
      this.layers[index].status = "idle";
    }

    retry(index) {
      this.layers[index].status = "idle";
      this.need(index, true);
      this.onChange(index);
    }

    pump() {
      while (this.active < 2 && this.waiting.length && !this.closed) this.fetch(this.waiting.shift());
    }

    async fetch(index) {
      const layer = this.layers[index];
      this.active += 1;
      layer.status = "loading";
      try {
        layer.data = await decode(await this.source.layer(index));
        layer.status = "ready";
      } catch (error) {
        layer.status = "error";
        layer.error = message(error);
      }
      this.active -= 1;
      if (this.closed) return;
      this.onChange(index);
      this.pump();
    }

    /** Exact row and column through a position, if they are here already. */
    exact(layer, head, pos) {
      const found = this.lines.get(`${layer}.${head}.${pos}`);
      return found && found.row ? found : null;
    }

    async fetchExact(layer, head, pos) {
      const key = `${layer}.${head}.${pos}`;
      if (!this.source.cross || this.lines.has(key)) return;
      this.lines.set(key, {});
      if (this.lines.size > 400) this.lines.delete(this.lines.keys().next().value);
      try {
        const found = await this.source.cross(layer, head, pos);
        const numbers = (line) => Array.from(line, (v) => (v === null ? NaN : v));
        this.lines.set(key, { row: numbers(found.row), column: numbers(found.column) });
        if (!this.closed) this.onChange(-1);
      } catch {
        this.lines.delete(key); // the picture's own values stay in use, and say so
      }
    }
  }

  // ---------------------------------------------------------------- all heads as thumbnails

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
      button.title = [`head ${layer}.${head}`, ...badges.map(badgeText)].join("\n");
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
        this.drawAll();
      }
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

  // ---------------------------------------------------------------- one head, large

  class LargeView {
    constructor(view) {
      this.view = view;
      this.element = make("div", "wba-large");
      this.title = make("div", "wba-title");
      this.title.setAttribute("aria-live", "polite");
      this.stage = make("div", "wba-stage");
      this.base = make("canvas", "wba-base");
      this.base.setAttribute("role", "img");
      this.over = make("canvas", "wba-over");
      this.tip = make("div", "wba-tip");
      this.tip.hidden = true;
      this.note = make("div", "wba-stage-note");
      this.stage.append(this.base, this.over, this.tip, this.note);
      this.element.append(this.title, this.stage);
      this.over.addEventListener("pointermove", (event) => this.pointed(event));
      this.over.addEventListener("pointerleave", () => view.look(null));
      this.over.addEventListener("click", (event) => this.cellAt(event) && view.pin(this.cellAt(event).query));
    }

    /** Sizes in CSS pixels: square cells, room for labels, axis titles and the colour bar. */
    layout(width, height) {
      const { query_tokens: queries, key_tokens: keys } = this.view.meta;
      const context = this.base.getContext("2d");
      context.font = this.font();
      const widest = (tokens) => Math.min(104, Math.max(14, ...tokens.slice(0, 600).map((t) => context.measureText(short(visible(t), 14)).width)));
      const left = 30 + widest(queries), right = 84;
      // Turned labels of the first keys run out to the left, below the labels of the queries.
      const bottom = 34 + widest(keys) * 0.71;
      const cell = Math.min((width - left - right) / keys.length, (height - bottom - 8) / queries.length, 56);
      this.box = {
        left, top: 8, cell: Math.max(cell, 0.25), width: Math.round(cell * keys.length), height: Math.round(cell * queries.length),
        outerWidth: Math.max(200, Math.floor(width)), outerHeight: Math.max(160, Math.ceil(8 + cell * queries.length + bottom)),
      };
      for (const canvas of [this.base, this.over]) this.view.resize(canvas, this.box.outerWidth, this.box.outerHeight);
      this.stage.style.height = `${this.box.outerHeight}px`;
      // Where the cells lie, for whoever points at them from outside.
      Object.assign(this.over.dataset, { left: this.box.left, top: this.box.top, cell: this.box.cell });
    }

    font(weight = "") {
      return `${weight} 12px ${this.view.css("--wba-font-mono")}`.trim();
    }

    draw() {
      const started = performance.now();
      const { view, box } = this;
      const { layer, head } = view.shown;
      const data = view.store.layer(layer);
      this.describe();
      if (!box) return;
      const context = this.base.getContext("2d");
      context.setTransform(view.dpr, 0, 0, view.dpr, 0, 0);
      context.clearRect(0, 0, box.outerWidth, box.outerHeight);
      context.fillStyle = view.hatch(context);
      context.fillRect(box.left, box.top, box.width, box.height);
      if (data && head < data.heads) {
        const picture = view.picture(data, head, Math.max(box.width, 1) * view.dpr);
        context.imageSmoothingEnabled = false;
        const { scaleX, scaleY } = picture;
        context.drawImage(picture.canvas, box.left, box.top, box.width * scaleX, box.height * scaleY);
      }
      this.drawFrame(context);
      this.drawBar(context);
      this.drawFocus();
      api.lastRedrawMs = performance.now() - started;
      if (data && api.firstPaintMs === null) api.firstPaintMs = performance.now();
    }

    describe() {
      const { view } = this;
      const { layer, head } = view.shown;
      const { status, error } = view.store.layers[layer] || {};
      const badges = view.badges(layer, head);
      const parts = [make("strong", "", `head ${layer}.${head}`), ...badges.map((b) => make("span", "wba-title-badge", `· ${badgeText(b)}`))];
      if (view.locked) parts.push(make("span", "wba-lock", "locked · Esc releases"));
      this.title.replaceChildren(...parts);
      this.note.textContent = { error: `Layer ${layer} did not load: ${short(error || "", 160)}`, ready: "" }[status] ?? `Loading layer ${layer} …`;
      this.note.hidden = status === "ready";
      const { query_tokens: queries, key_tokens: keys, kind } = view.meta;
      this.base.setAttribute("aria-label", `head ${layer}.${head}: ${kind} of ${queries.length} queries and ${keys.length} keys`);
    }

    /** Every how many tokens a label fits. */
    every(pixels) {
      return Math.max(1, Math.ceil(pixels / this.box.cell));
    }

    drawFrame(context) {
      const { view, box } = this;
      const { query_tokens: queries, key_tokens: keys } = view.meta;
      context.strokeStyle = view.css("--wba-line");
      context.lineWidth = 1;
      context.strokeRect(box.left - 0.5, box.top - 0.5, box.width + 1, box.height + 1);
      context.fillStyle = view.css("--wba-ink");
      context.font = this.font();
      context.textBaseline = "middle";
      for (let q = 0; q < queries.length; q += this.every(13)) this.queryLabel(context, q);
      for (let k = 0; k < keys.length; k += this.every(15)) this.keyLabel(context, k);
      context.font = `600 12px ${view.css("--wba-font")}`;
      context.textAlign = "center";
      context.fillStyle = view.css("--wba-row");
      context.save();
      context.translate(9, box.top + box.height / 2);
      context.rotate(-Math.PI / 2);
      context.fillText("query (attends from)", 0, 0);
      context.restore();
      context.fillStyle = view.css("--wba-column");
      context.fillText("key (attended to)", box.left + box.width / 2, box.outerHeight - 9);
    }

    queryLabel(context, q) {
      const { box } = this;
      context.textAlign = "right";
      context.fillText(short(visible(this.view.meta.query_tokens[q]), 14), box.left - 7, box.top + (q + 0.5) * box.cell, 104);
    }

    keyLabel(context, k) {
      const { box } = this;
      context.save();
      context.translate(box.left + (k + 0.5) * box.cell + 3, box.top + box.height + 8);
      context.rotate(-Math.PI / 4);
      context.textAlign = "right";
      context.fillText(short(visible(this.view.meta.key_tokens[k]), 14), 0, 0, 104);
      context.restore();
    }

    drawBar(context) {
      const { view, box } = this;
      const limit = view.limit(view.shown), x = box.left + box.width + 18, height = Math.max(60, Math.min(box.height, 280)), wide = 12;
      const { colour, words } = view;
      for (let y = 0; y < height; y++) {
        const word = words[Math.round((COLOURS - 1) * (1 - y / (height - 1)))];
        context.fillStyle = `rgb(${word & 255},${(word >> 8) & 255},${(word >> 16) & 255})`;
        context.fillRect(x, box.top + y, wide, 1.5);
      }
      context.strokeStyle = view.css("--wba-line");
      context.strokeRect(x - 0.5, box.top - 0.5, wide + 1, height + 1);
      context.fillStyle = view.css("--wba-ink");
      context.font = `11px ${view.css("--wba-font")}`;
      context.textAlign = "left";
      context.textBaseline = "middle";
      let last = Infinity;
      for (const value of ticks(limit, colour)) {
        const y = box.top + height * (1 - shade(value, limit, colour) / (COLOURS - 1));
        if (Math.abs(y - last) < 14) continue;
        last = y;
        context.fillRect(x + wide, Math.round(y), 4, 1);
        context.fillText(tick(value), x + wide + 7, clamp(y, box.top + 5, box.top + height - 4));
      }
      context.save();
      context.translate(x + wide + 48, box.top + height / 2);
      context.rotate(Math.PI / 2);
      context.textAlign = "center";
      context.fillStyle = view.css("--wba-muted");
      context.fillText(view.meta.unit + (colour.root ? " (√ scale)" : ""), 0, 0, height);
      context.restore();
    }

    /** Crosshair and the two labels it crosses; on its own canvas, so that the map stays as it is. */
    drawFocus() {
      const { view, box } = this;
      if (!box) return;
      const context = this.over.getContext("2d");
      context.setTransform(view.dpr, 0, 0, view.dpr, 0, 0);
      context.clearRect(0, 0, box.outerWidth, box.outerHeight);
      const focus = view.focus();
      this.tip.hidden = !(focus && focus.cell);
      if (!focus) return;
      const band = Math.max(box.cell, 2);
      const middle = (i) => (i + 0.5) * box.cell;
      context.lineWidth = box.cell > 6 ? 1.5 : 1;
      if (focus.query < view.meta.query_tokens.length) {
        context.strokeStyle = view.css("--wba-row");
        context.strokeRect(box.left, box.top + middle(focus.query) - band / 2, box.width, band);
      }
      if (focus.key < view.meta.key_tokens.length) {
        context.strokeStyle = view.css("--wba-column");
        context.strokeRect(box.left + middle(focus.key) - band / 2, box.top, band, box.height);
      }
      this.markLabels(context, focus);
      if (focus.cell) this.showTip(focus);
    }

    markLabels(context, { query, key }) {
      const { view, box } = this;
      context.font = this.font("bold");
      context.textBaseline = "middle";
      const plate = (colour, x, width) => {
        context.fillStyle = view.css("--wba-paper");
        context.fillRect(x, -7, width, 14);
        context.fillStyle = view.css(colour);
      };
      if (query < view.meta.query_tokens.length) {
        context.save();
        context.translate(0, box.top + (query + 0.5) * box.cell);
        plate("--wba-row", 20, box.left - 22);
        context.translate(0, -box.top - (query + 0.5) * box.cell);
        this.queryLabel(context, query);
        context.restore();
      }
      if (key < view.meta.key_tokens.length) {
        const width = Math.min(104, context.measureText(short(visible(view.meta.key_tokens[key]), 14)).width);
        context.save();
        context.translate(box.left + (key + 0.5) * box.cell + 3, box.top + box.height + 8);
        context.rotate(-Math.PI / 4);
        plate("--wba-column", -width - 2, width + 4);
        context.restore();
        context.fillStyle = view.css("--wba-column");
        this.keyLabel(context, key);
      }
    }

    cellAt(event) {
      const { box } = this;
      if (!box) return null;
      const frame = this.over.getBoundingClientRect();
      const key = Math.floor((event.clientX - frame.left - box.left) / box.cell);
      const query = Math.floor((event.clientY - frame.top - box.top) / box.cell);
      const { query_tokens: queries, key_tokens: keys } = this.view.meta;
      return query >= 0 && key >= 0 && query < queries.length && key < keys.length ? { query, key, cell: true } : null;
    }

    pointed(event) {
      this.view.look(this.cellAt(event));
    }

    showTip({ query, key }) {
      const { view, box, tip } = this;
      const { value, exact, exists } = view.cell(query, key);
      const { query_tokens: queries, key_tokens: keys, unit } = view.meta;
      const line = (name, pos, token) => {
        const row = make("div");
        row.append(make("span", "wba-tip-name", name), make("b", "", short(visible(token), 28)), make("span", "wba-tip-pos", ` ${pos}`));
        return row;
      };
      const text = exists ? `${exact ? "" : "≈ "}${number(value)} ${unit}` : "no such cell: a query sees no later key";
      tip.replaceChildren(line("query", query, queries[query]), line("key", key, keys[key]), make("div", "wba-tip-value", text));
      tip.dataset.exact = String(exact);
      const x = box.left + (key + 1) * box.cell + 10, y = box.top + (query + 1) * box.cell + 10;
      const flip = x + tip.offsetWidth > box.outerWidth;
      tip.style.left = `${Math.max(0, flip ? box.left + key * box.cell - tip.offsetWidth - 10 : x)}px`;
      tip.style.top = `${Math.max(0, Math.min(y, box.outerHeight - tip.offsetHeight))}px`;
    }
  }

  /** Round values for the colour bar, the ends first so that they win the room. */
  function ticks(limit, colour) {
    const parts = colour.root ? [1, 0, 0.25, 0.5, 0.05, 0.1, 0.01] : [1, 0, 0.5, 0.25, 0.75];
    const sorted = parts.sort((a, b) => b - a).map((part) => part * limit);
    return colour.signed ? [...sorted, ...sorted.slice(0, -1).reverse().map((v) => -v)] : sorted;
  }

  // ---------------------------------------------------------------- the text, token by token

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
        return order.slice(0, 3).map(([value, pos]) => `${short(tokens[pos] ?? from, 16)} ${number(value)}`).join("   ") || "nothing";
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

  // ---------------------------------------------------------------- the whole

  class View {
    constructor(element, source, options) {
      this.host = element;
      this.root = make("div", "wba");
      this.options = {};
      this.pinned = null;
      this.locked = false;
      this.shown = { layer: 0, head: 0 };
      this.looking = null;
      this.ownRange = false;
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
        toggle("range per head", "colours up to each head's own maximum", () => this.ownRange, (on) => { this.ownRange = on; }),
      );
      return bar;
    }

    usesRoot() {
      return this.rootScale ?? !this.meta.signed;
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

    badges(layer, head) {
      return (this.meta.badges && this.meta.badges[`${layer}.${head}`]) || [];
    }

    limit({ layer, head }) {
      const data = this.ownRange && this.store.layer(layer);
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
      const limit = (this.ownRange && data.limits[head]) || this.meta.limit;
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

  // ---------------------------------------------------------------- ways in

  function fromBase64(text) {
    return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  }

  const sources = {
    /** Everything in one object, as in the exported page: payloads and exact values in base64. */
    embedded({ meta, layers, exact }) {
      const source = {
        meta: async () => meta,
        layer: async (layer) => fromBase64(layers[layer]),
      };
      if (exact) source.cross = (layer, head, pos) => exactFrom(exact[layer], meta, head, pos);
      return source;
    },

    /** A notebook: payloads lie in the widget's traits; exact lines are asked of the kernel. */
    widget(model) {
      const open = new Map();
      let next = 0;
      const heard = (content, buffers) => {
        const asked = open.get(content.id);
        if (!asked) return;
        open.delete(content.id);
        if (content.error) asked.reject(new Error(content.error));
        else asked.resolve(content.cross || asBytes(buffers[0]));
      };
      model.on("msg:custom", heard);
      const ask = (request) => new Promise((resolve, reject) => {
        const id = ++next;
        open.set(id, { resolve, reject });
        setTimeout(() => open.delete(id) && reject(new Error("the kernel did not answer")), 60000);
        model.send({ ...request, id });
      });
      return {
        meta: async () => model.get("meta"),
        layer: async (layer) => {
          const sent = model.get("payloads")[String(layer)];
          return sent ? asBytes(sent) : ask({ ask: "layer", layer });
        },
        cross: (layer, head, pos) => ask({ ask: "cross", layer, head, pos }),
        close: () => model.off("msg:custom", heard),
      };
    },
  };

  const floats = new WeakMap();

  async function exactFrom(packed, meta, head, pos) {
    if (!floats.has(packed)) floats.set(packed, gunzip(fromBase64(packed.data)).then((bytes) => new Float32Array(bytes.buffer)));
    const values = await floats.get(packed);
    const [queries, keys] = [meta.query_tokens.length, meta.key_tokens.length];
    const at = (query, key) => values[(head * queries + query) * keys + key];
    return {
      row: pos < queries ? Array.from({ length: keys }, (_, key) => at(pos, key)) : [],
      column: pos < keys ? Array.from({ length: queries }, (_, query) => at(query, pos)) : [],
    };
  }

  function mount(element, source, options) {
    const view = new View(element, source, options || {});
    return {
      update: (nextSource, nextOptions) => view.update(nextSource, nextOptions),
      setState: (state) => view.setState(state),
      getState: () => view.getState(),
      destroy: () => view.destroy(),
    };
  }

  /** anywidget's entry: `export default { render }`. */
  function render({ model, el }) {
    const source = sources.widget(model);
    const onState = (state) => {
      model.set("state", state);
      model.save_changes();
    };
    const view = mount(el, source, { theme: model.get("theme") || undefined, state: model.get("state"), height: model.get("height"), onState });
    const moved = () => view.setState(model.get("state"));
    model.on("change:state", moved);
    return () => {
      model.off("change:state", moved);
      source.close();
      view.destroy();
    };
  }

  const api = { mount, render, decode, sources, visible, lastRedrawMs: null, firstPaintMs: null };
  globalThis.WorkbenchAttention = api;
})();
