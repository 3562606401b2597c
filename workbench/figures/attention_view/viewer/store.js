// The layers, fetched as they are needed.

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
