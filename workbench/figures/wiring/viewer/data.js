// The payload of workbench/figures/wiring/payload.py as typed arrays.

const FORMAT = 1;

function numbers(text, Kind) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Kind(bytes.buffer);
}

function decode(payload) {
  if (!payload || payload.format !== FORMAT) throw new Error("not a wiring picture of this version");
  const dots = {
    group: numbers(payload.dots.group, Uint16Array),
    index: numbers(payload.dots.index, Uint32Array),
    x: numbers(payload.dots.x, Float32Array),
    y: numbers(payload.dots.y, Float32Array),
    labels: payload.dots.labels,
  };
  const frames = payload.frames.map((frame) => ({
    step: frame.step,
    wires: frame.wires,
    leftOut: frame.left_out,
    largest: frame.largest,
    source: numbers(frame.source, Uint32Array),
    target: numbers(frame.target, Uint32Array),
    weight: numbers(frame.weight, Float32Array),
    block: numbers(frame.block, Uint16Array),
    stands: frame.stands ? numbers(frame.stands, Uint32Array) : null,
    sorted: null,
  }));
  return { ...payload, dots, frames };
}

const BINS = 24;

/** A line's weight as a part of what is drawn thickest. */
function part(data, frame, line) {
  return Math.min(1, Math.abs(frame.weight[line]) / data.blocks[frame.block[line]].limit);
}

/**
 * Lines by how they look, thin before thick: `order[from[b] … from[b + 1]]` are those of bin b, which is
 * 2 · size + sign. Bins are even in the square root of the size: near zero a step is a small one.
 */
function sorted(data, frame) {
  if (frame.sorted) return frame.sorted;
  const n = frame.weight.length, bins = new Uint8Array(n), from = new Uint32Array(2 * BINS + 1);
  for (let line = 0; line < n; line++) {
    const size = Math.min(BINS - 1, Math.floor(Math.sqrt(part(data, frame, line)) * BINS));
    bins[line] = 2 * size + (frame.weight[line] > 0 ? 1 : 0);
    from[bins[line] + 1] += 1;
  }
  for (let bin = 0; bin < 2 * BINS; bin++) from[bin + 1] += from[bin];
  const order = new Uint32Array(n), next = from.slice();
  for (let line = 0; line < n; line++) order[next[bins[line]]++] = line;
  frame.sorted = { order, from };
  return frame.sorted;
}
