// One head, large.

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
    if (badges.length) {
      const where = make("span", "wba-measured", MEASURED);
      where.title = "measured on random tokens that repeat, not on this prompt";
      parts.push(where);
    }
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
      context.fillRect(x, -10, width, 20);
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
      plate("--wba-column", -width - 6, width + 10);
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

/** Round values for the colour bar, 1, 2, 2.5 or 5 times a power of ten, largest first. */
function ticks(limit, colour) {
  const sizes = [];
  for (let power = Math.floor(Math.log10(limit) + 1e-9); 10 ** power > limit / 500; power--) {
    for (const part of [5, 2.5, 2, 1]) {
      const value = Number(`${part}e${power}`);
      if (value <= limit * 1.000001 && value > limit / 80) sizes.push(value);
    }
  }
  const positive = colour.root ? sizes : evenly(sizes[0], limit);
  return colour.signed ? [...positive, 0, ...positive.map((v) => -v).reverse()] : [...positive, 0];
}

/** Multiples of the largest round step that fits at least twice. */
function evenly(size, limit) {
  const mantissa = Number(size.toExponential().split("e")[0]);
  const step = size / (mantissa === 1 || mantissa === 2 ? 4 : 5);
  const count = Math.floor((limit / step) * 1.000001);
  return Array.from({ length: count }, (_, i) => Number(((count - i) * step).toPrecision(3)));
}
