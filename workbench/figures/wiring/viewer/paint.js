// Painting: lines in batches of one look, then dots, names and boxes. Each layer has a canvas of its own.

const INVISIBLE = 1 / 255;
const BATCH = 512; // hairlines of one look are quickest together, wider lines one by one

/** Lines of at least a weight, thin ones first. `only` limits them to some, by number. */
function paintLines(context, data, frame, place, { look, ink, threshold, strong = 1 }) {
  const { order, from } = sorted(data, frame);
  context.lineCap = "butt";
  for (let bin = 0; bin < 2 * BINS; bin++) {
    if (from[bin] === from[bin + 1]) continue;
    const t = middle(bin >> 1);
    const alpha = Math.min(1, look.alpha(t) * strong);
    if (alpha < INVISIBLE) continue;
    context.strokeStyle = bin & 1 ? ink.positive : ink.negative;
    context.globalAlpha = alpha;
    context.lineWidth = look.width(t);
    const batch = look.width(t) <= 1 ? BATCH : 1;
    let held = 0;
    context.beginPath();
    for (let at = from[bin]; at < from[bin + 1]; at++) {
      const line = order[at];
      if (Math.abs(frame.weight[line]) < threshold) continue;
      const a = frame.source[line], b = frame.target[line];
      context.moveTo(place.x[a], place.y[a]);
      context.lineTo(place.x[b], place.y[b]);
      if (++held === batch) {
        context.stroke();
        context.beginPath();
        held = 0;
      }
    }
    if (held) context.stroke();
  }
  context.globalAlpha = 1;
}

/** Some lines, each with its own look, as strong as they can be. */
function paintSome(context, data, frame, place, lines, { look, ink, threshold }) {
  for (const line of lines) {
    if (Math.abs(frame.weight[line]) < threshold) continue;
    const t = part(data, frame, line);
    const a = frame.source[line], b = frame.target[line];
    context.strokeStyle = frame.weight[line] > 0 ? ink.positive : ink.negative;
    context.globalAlpha = Math.min(1, 0.08 + t / FULL_INK);
    context.lineWidth = Math.max(0.5, look.width(t) * 1.15);
    context.beginPath();
    context.moveTo(place.x[a], place.y[a]);
    context.lineTo(place.x[b], place.y[b]);
    context.stroke();
  }
  context.globalAlpha = 1;
}

/** Which dots a visible line ends at. */
function wired(data, frame, look, threshold) {
  const found = new Uint8Array(data.dots.x.length);
  for (let line = 0; line < frame.weight.length; line++) {
    if (Math.abs(frame.weight[line]) < threshold || look.alpha(part(data, frame, line)) < 0.03) continue;
    found[frame.source[line]] = 1;
    found[frame.target[line]] = 1;
  }
  return found;
}

/** Text on a patch of paper, so that lines behind it do not cross it. */
function patched(context, text, x, y, ink, colour) {
  const wide = context.measureText(text).width, left = context.textAlign === "center" ? x - wide / 2 : x;
  context.globalAlpha = 0.82;
  context.fillStyle = ink.paper;
  context.beginPath();
  context.roundRect(left - 3, y - 8, wide + 6, 16, 4);
  context.fill();
  context.globalAlpha = 1;
  context.fillStyle = colour;
  context.fillText(text, x, y);
}

function paintBoxes(context, data, place, ink) {
  context.font = `11.5px ${ink.font}`;
  context.textBaseline = "middle";
  context.textAlign = "left";
  for (const [name, left, right, row] of data.boxes) {
    const [x0, x1, y] = [place.across(left) - 5, place.across(right) + 5, place.up(row)];
    context.globalAlpha = 0.72;
    context.fillStyle = ink.panel;
    context.beginPath();
    context.roundRect(x0, y - 11, x1 - x0, 22, 7);
    context.fill();
    context.globalAlpha = 1;
    context.strokeStyle = ink.muted;
    context.lineWidth = 1;
    context.stroke();
    const isHead = name.startsWith("head ");
    const says = isHead && x1 - x0 > 110 ? `${name}   qk · vo` : isHead && x1 - x0 < 50 ? name.slice(5) : name;
    patched(context, says, x0 + 4, y - 21, ink, ink.ink);
  }
}

function paintDots(context, data, place, live, ink) {
  const n = data.dots.x.length;
  for (const alive of [0, 1]) {
    context.fillStyle = alive ? ink.ink : ink.paper;
    context.strokeStyle = alive ? ink.paper : ink.line;
    for (let dot = 0; dot < n; dot++) {
      if (live[dot] !== alive) continue;
      const r = place.radius[dot];
      if (r < 1.6) {
        context.fillStyle = alive ? ink.ink : ink.line;
        context.fillRect(place.x[dot] - r, place.y[dot] - 2.5, 2 * r, 5);
        continue;
      }
      context.beginPath();
      context.arc(place.x[dot], place.y[dot], alive ? r : r * 0.8, 0, 2 * Math.PI);
      context.fill();
      context.lineWidth = alive ? 1.2 : 1;
      context.stroke();
    }
  }
}

/** Names of rows at the left; names of units under the lowest row, above the highest, beside the others. */
function paintNames(context, data, place, live, ink) {
  context.fillStyle = ink.muted;
  context.font = `12px ${ink.font}`;
  context.textBaseline = "middle";
  context.textAlign = "left";
  for (const [name, row] of data.rows) {
    if (place.gutter) context.fillText(name, 0, place.up(row), place.gutter - 10);
    // Boxes of heads have names of their own above them.
    else context.fillText(name, 2, place.up(row) - (name.startsWith("heads") ? 40 : 26));
  }
  if (!data.dots.labels.length) return;
  const top = Math.max(...data.rows.map(([, row]) => row));
  context.font = `600 12.5px ${ink.font}`;
  context.textAlign = "center";
  const rows = new Map();
  data.dots.labels.forEach((label, dot) => {
    if (!label || !place.named[dot] || place.spacing[dot] < 9) return;
    const row = Math.round(data.dots.y[dot]);
    if (!rows.has(row)) rows.set(row, []);
    rows.get(row).push(dot);
  });
  for (const [row, dots] of rows) {
    dots.sort((a, b) => place.x[a] - place.x[b]);
    let end = -Infinity;
    for (const dot of dots) {
      const text = data.dots.labels[dot].trim() || "␣", wide = context.measureText(text).width;
      const x = Math.max(place.x[dot], place.gutter + wide / 2);
      if (wide > 90 || x - wide / 2 < end + 5) continue;
      end = x + wide / 2;
      const away = place.radius[dot] + 12;
      context.fillStyle = live[dot] ? ink.ink : ink.muted;
      context.fillText(text, x, place.y[dot] + (row === top ? -away : away));
    }
  }
}
