// One layer as it arrives: header, codes, and the values they stand for.

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
