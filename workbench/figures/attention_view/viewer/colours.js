// Colours: ramps that are white (or dark) at zero and safe for colour-blind readers.

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
