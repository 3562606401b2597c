// One picture in the page: three canvases on top of one another, a legend, and what pointer and keys do.

const MARGIN = { top: 46, right: 18, bottom: 40 };
const GUTTER = 116;
const MOVE_MS = 420;
const MOVABLE_LINES = 6000; // more are not redrawn for every step of a movement

class View {
  constructor(element, payload, options) {
    this.element = element;
    this.options = options;
    this.cut = options.threshold || 0;
    this.at = 0;
    this.chosen = this.focused = this.hovered = -1;
    this.build();
    this.listen();
    this.update(payload);
  }

  build() {
    const node = (tag, name, parent) => {
      const made = document.createElement(tag);
      made.className = name;
      if (parent) parent.append(made);
      return made;
    };
    this.root = node("div", "wbw", null);
    this.title = node("div", "wbw-title", this.root);
    this.stage = node("div", "wbw-stage", this.root);
    this.stage.tabIndex = 0;
    this.stage.setAttribute("role", "application");
    this.stage.setAttribute("aria-roledescription", "wiring picture");
    this.layers = ["lines", "dots", "over"].map((name) => node("canvas", `wbw-layer wbw-${name}`, this.stage));
    this.tip = node("div", "wbw-tip", this.stage);
    this.tip.hidden = true;
    this.said = node("div", "wbw-said", this.root);
    this.said.setAttribute("role", "status");
    this.foot = node("div", "wbw-foot", this.root);
    this.key = node("div", "wbw-key", this.foot);
    this.count = node("div", "wbw-count", this.foot);
    this.steps = node("label", "wbw-steps", this.root);
    this.element.replaceChildren(this.root);
  }

  listen() {
    this.watch = new ResizeObserver(() => this.root.clientWidth !== this.wide && this.layout());
    this.watch.observe(this.root);
    this.system = matchMedia("(prefers-color-scheme: dark)");
    this.systemChanged = () => this.options.theme || this.restyle();
    this.system.addEventListener("change", this.systemChanged);
    this.stage.addEventListener("pointermove", (event) => this.hover(event));
    this.stage.addEventListener("pointerleave", () => this.hover(null));
    this.stage.addEventListener("click", (event) => {
      const dot = this.under(event);
      this.choose(dot === this.chosen ? -1 : dot);
    });
    this.stage.addEventListener("keydown", (event) => this.press(event));
    this.stage.addEventListener("focus", () => this.stage.matches(":focus-visible") && this.focusOn(this.focused));
    this.stage.addEventListener("blur", () => this.paintOver());
  }

  /** Another picture, or the same of another network: what can be kept is. */
  update(payload) {
    const old = this.data && this.name(this.chosen);
    this.data = decode(payload);
    this.at = Math.min(this.at, this.data.frames.length - 1);
    this.look = lookOf(this.data.density);
    this.hovered = this.focused = -1;
    this.chosen = old ? this.find(old.group, old.index) : -1;
    this.title.textContent = this.options.title ? this.data.title : "";
    this.title.hidden = !this.options.title;
    this.stage.setAttribute("aria-label", `Wiring of ${this.data.title}. Arrow keys move between units, Enter chooses one.`);
    this.buildSteps();
    this.layout();
  }

  get frame() {
    return this.data.frames[this.at];
  }

  get theme() {
    return this.options.theme || (this.system.matches ? "dark" : "light");
  }

  name(dot) {
    if (dot < 0) return null;
    const group = this.data.groups[this.data.dots.group[dot]];
    return { group, index: indexOf(this.data, this.frame, dot), label: this.data.dots.labels[dot] || "" };
  }

  find(group, index) {
    const number = this.data.groups.indexOf(group);
    return this.data.dots.group.findIndex((one, dot) => one === number && indexOf(this.data, this.frame, dot) === index);
  }

  /** Sizes and places for the width that there is. */
  layout() {
    this.wide = this.root.clientWidth;
    if (!this.wide) return;
    const rows = this.data.rows.length, gutter = this.wide < 560 ? 0 : GUTTER;
    const isAslant = this.data.dots.y.some((y) => Math.abs(y - Math.round(y)) > 0.1);
    const gap = isAslant ? 190 : rows > 8 ? 84 : rows > 5 ? 98 : 132;
    const above = MARGIN.top + (isAslant ? 0.2 * gap : 0), below = MARGIN.bottom + (isAslant ? 0.2 * gap : 0);
    this.high = this.options.height || above + below + Math.max(1, rows - 1) * gap;
    const wide = this.wide - gutter - MARGIN.right - 6, high = this.high - above - below;
    const top = Math.max(1, rows - 1);
    this.place = {
      gutter,
      across: (x) => gutter + 6 + x * wide,
      up: (y) => above + (1 - y / top) * high,
    };
    this.space(wide);
    this.move(this.targets());
    this.stage.style.height = `${this.high}px`;
    const fine = Math.min(2, window.devicePixelRatio || 1), n = Math.max(...this.data.frames.map((one) => one.weight.length));
    for (const layer of this.layers) {
      // Thousands of lines overlap anyway; lines of one pixel are drawn several times as fast as wider ones.
      const dense = layer === this.layers[0] && n > MOVABLE_LINES ? 1 : fine;
      layer.width = Math.round(this.wide * dense);
      layer.height = Math.round(this.high * dense);
      layer.getContext("2d").setTransform(dense, 0, 0, dense, 0, 0);
    }
    this.restyle();
  }

  /** How far apart the dots of each row are, which says how large they may be. */
  space(wide) {
    const { group, index, x, y } = this.data.dots, n = x.length;
    this.place.spacing = new Float32Array(n);
    this.place.radius = new Float32Array(n);
    this.place.named = new Uint8Array(n); // on a square names would cover the units behind
    let from = 0;
    for (let dot = 1; dot <= n; dot++) {
      if (dot < n && group[dot] === group[from] && index[dot] > index[dot - 1]) continue;
      const isFlat = y.subarray(from, dot).every((one) => one === y[from]);
      let [low, high] = [1, 0];
      for (let one = from; one < dot; one++) [low, high] = [Math.min(low, x[one]), Math.max(high, x[one])];
      const count = isFlat ? dot - from : Math.sqrt(dot - from);
      const apart = count > 1 ? ((high - low) * wide) / Math.max(1, count - 1) : wide;
      this.place.spacing.fill(apart, from, dot);
      this.place.named.fill(isFlat || dot - from <= 12 ? 1 : 0, from, dot);
      this.place.radius.fill(Math.max(0.6, Math.min(6.5, apart * 0.3)), from, dot);
      from = dot;
    }
  }

  targets() {
    const { x, y } = this.data.dots, { stands } = this.frame, n = x.length;
    const to = { x: new Float32Array(n), y: new Float32Array(n) };
    for (let dot = 0; dot < n; dot++) {
      const at = stands ? stands[dot] : dot;
      to.x[dot] = this.place.across(x[at]);
      to.y[dot] = this.place.up(y[at]);
    }
    return to;
  }

  move({ x, y }) {
    this.place.x = x;
    this.place.y = y;
  }

  restyle() {
    this.root.dataset.wbwTheme = this.theme;
    this.ink = colours(this.root, this.theme);
    this.legend();
    this.paint();
  }

  context(layer) {
    const context = this.layers[layer].getContext("2d");
    context.clearRect(0, 0, this.wide, this.high);
    return context;
  }

  paint() {
    if (!this.wide) return;
    const started = performance.now();
    this.paintLines();
    this.paintDots();
    this.paintOver();
    this.count.textContent = spellShown(this.frame, this.cut);
    api.lastRedrawMs = performance.now() - started;
  }

  paintLines() {
    const how = { look: this.look, ink: this.ink, threshold: this.cut };
    paintLines(this.context(0), this.data, this.frame, this.place, how);
  }

  paintDots() {
    const live = wired(this.data, this.frame, this.look, this.cut);
    const context = this.context(1);
    paintBoxes(context, this.data, this.place, this.ink);
    paintDots(context, this.data, this.place, live, this.ink);
    paintNames(context, this.data, this.place, live, this.ink);
  }

  /** The lines of the unit under the pointer or chosen, alone; all others step back. */
  paintOver() {
    if (!this.wide) return;
    const context = this.context(2);
    const dot = this.hovered >= 0 ? this.hovered : this.chosen;
    this.layers[0].classList.toggle("wbw-back", dot >= 0);
    if (dot >= 0) {
      const same = this.same(dot);
      // A few lines need not be as thin as thousands.
      const how = { look: lookOf(Math.min(this.data.density, 400)), ink: this.ink, threshold: this.cut };
      paintSome(context, this.data, this.frame, this.place, this.linesOf(same), how);
      for (const one of same) this.ring(context, one, this.ink.accent, 2);
    }
    if (this.focused >= 0 && this.stage.matches(":focus-visible")) this.ring(context, this.focused, this.ink.ink, 1.5, 4);
  }

  ring(context, dot, colour, width, out = 2) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    context.arc(this.place.x[dot], this.place.y[dot], Math.max(3, this.place.radius[dot]) + out, 0, 2 * Math.PI);
    context.stroke();
  }

  /** A channel of the stream is the same unit at every depth. */
  same(dot) {
    const { group, index } = this.data.dots, found = [];
    for (let one = 0; one < group.length; one++) if (group[one] === group[dot] && index[one] === index[dot]) found.push(one);
    return found;
  }

  linesOf(dots) {
    const mine = new Set(dots), found = [];
    const { source, target } = this.frame;
    // Lines come thickest first: the thin ones are painted before them.
    for (let line = source.length - 1; line >= 0; line--) if (mine.has(source[line]) || mine.has(target[line])) found.push(line);
    return found;
  }

  under(event) {
    const box = this.stage.getBoundingClientRect();
    return nearestDot(this.place, event.clientX - box.left, event.clientY - box.top, 12);
  }

  hover(event) {
    const box = this.stage.getBoundingClientRect();
    const dot = event ? this.under(event) : -1;
    let text = "";
    if (dot >= 0) text = spellDot(this.data, this.frame, dot, this.linesOf([dot]), this.cut);
    else if (event) {
      const isShown = (line) => Math.abs(this.frame.weight[line]) >= this.cut && this.look.alpha(part(this.data, this.frame, line)) > 0.05;
      const line = nearestLine(this.frame, this.place, event.clientX - box.left, event.clientY - box.top, 4, isShown);
      if (line >= 0) text = spellLine(this.data, this.frame, line);
    }
    if (dot !== this.hovered) {
      this.hovered = dot;
      this.paintOver();
    }
    this.stage.style.cursor = dot >= 0 ? "pointer" : "";
    this.tip.hidden = !text;
    if (!text) return;
    this.tip.textContent = text;
    const left = Math.min(event.clientX - box.left + 14, this.wide - this.tip.offsetWidth - 4);
    this.tip.style.left = `${Math.max(0, left)}px`;
    this.tip.style.top = `${event.clientY - box.top + 16}px`;
  }

  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) {
      const from = this.focused >= 0 ? this.focused : this.chosen;
      this.focusOn(from < 0 ? 0 : nextDot(this.data, this.place, from, event.key));
    } else if (event.key === "Enter" || event.key === " ") {
      if (this.focused >= 0) this.choose(this.focused === this.chosen ? -1 : this.focused);
    } else if (event.key === "Escape") this.choose(-1);
    else return;
    event.preventDefault();
  }

  focusOn(dot) {
    this.focused = dot < 0 ? Math.max(0, this.chosen) : dot;
    this.say(this.focused);
    this.paintOver();
  }

  say(dot) {
    this.said.textContent = spellDot(this.data, this.frame, dot, this.linesOf(this.same(dot)), this.cut);
  }

  choose(dot) {
    if (dot === this.chosen) return;
    this.chosen = dot;
    if (dot >= 0) {
      this.focused = dot;
      this.say(dot);
    } else this.said.textContent = "";
    this.paintOver();
    const detail = dot < 0 ? null : { ...this.name(dot), frame: this.at, step: this.frame.step };
    this.element.dispatchEvent(new CustomEvent("wiring-dot", { bubbles: true, detail }));
  }

  threshold(value) {
    const cut = Number.isFinite(value) ? Math.max(0, value) : value === Infinity ? value : 0;
    if (cut === this.cut) return;
    this.cut = cut;
    this.paint();
  }

  /** Another snapshot: its lines at once, its dots on their way if some have moved. */
  show(number) {
    const next = Math.max(0, Math.min(this.data.frames.length - 1, Math.round(number) || 0));
    if (next === this.at) return;
    this.at = next;
    if (this.range) this.range.value = next;
    this.sayStep();
    if (!this.wide) return;
    cancelAnimationFrame(this.moving);
    const from = { x: this.place.x, y: this.place.y }, to = this.targets();
    const moves = to.x.some((x, dot) => x !== from.x[dot] || to.y[dot] !== from.y[dot]);
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches || this.options.still;
    if (moves && !still && this.frame.weight.length <= MOVABLE_LINES) this.glide(from, to);
    else {
      this.move(to);
      this.paint();
    }
  }

  glide(from, to) {
    const started = performance.now();
    const between = (a, b, t) => a.map((one, dot) => one + (b[dot] - one) * t);
    const step = (now) => {
      const t = Math.max(0, Math.min(1, (now - started) / MOVE_MS)), eased = t * t * (3 - 2 * t);
      this.move(t < 1 ? { x: between(from.x, to.x, eased), y: between(from.y, to.y, eased) } : to);
      this.paint();
      if (t < 1) this.moving = requestAnimationFrame(step);
    };
    this.moving = requestAnimationFrame(step);
  }

  buildSteps() {
    const { frames } = this.data;
    this.steps.hidden = !this.options.slider || frames.length < 2;
    this.steps.replaceChildren();
    this.range = null;
    if (this.steps.hidden) return;
    this.range = document.createElement("input");
    Object.assign(this.range, { type: "range", min: 0, max: frames.length - 1, value: this.at });
    this.stepSaid = document.createElement("span");
    this.steps.append(this.range, this.stepSaid);
    this.range.addEventListener("input", () => this.show(Number(this.range.value)));
    this.sayStep();
  }

  sayStep() {
    if (!this.stepSaid) return;
    this.stepSaid.textContent = this.frame.step === null ? "" : `step ${whole(this.frame.step)}`;
  }

  /** Widths at a quarter, a half and all of the limit, in both hues. */
  legend() {
    const limit = Math.max(...this.data.blocks.map((block) => block.limit));
    const isShared = this.data.scale === "network";
    const items = [];
    for (const [sign, ink] of [["−", this.ink.negative], ["+", this.ink.positive]]) {
      const shown = [0.25, 0.5, 1].map((t) => {
        const line = document.createElement("span");
        line.className = "wbw-sample";
        line.style.height = `${Math.max(0.5, this.look.width(t))}px`;
        line.style.background = ink;
        line.style.opacity = Math.max(0.5, this.look.alpha(t));
        return line;
      });
      const name = document.createElement("span");
      name.textContent = sign === "−" ? "negative" : "positive";
      items.push(...shown, name);
    }
    const says = document.createElement("span");
    says.className = "wbw-scale";
    const widths = isShared
      ? [0.25, 0.5, 1].map((t) => (limit * t).toPrecision(2)).join(", ")
      : "¼, ½, 1 of the largest in its matrix";
    says.textContent = `|w| = ${widths}; zero is invisible`;
    this.key.replaceChildren(...items, says);
  }

  destroy() {
    cancelAnimationFrame(this.moving);
    this.watch.disconnect();
    this.system.removeEventListener("change", this.systemChanged);
    this.element.replaceChildren();
  }
}
