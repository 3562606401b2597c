// What is under the pointer, and which dot is next to another.

function nearestDot(place, x, y, reach) {
  let best = -1, least = reach * reach;
  for (let dot = 0; dot < place.x.length; dot++) {
    const dx = place.x[dot] - x, dy = place.y[dot] - y, far = dx * dx + dy * dy;
    if (far < least) [best, least] = [dot, far];
  }
  return best;
}

/** The line that passes nearest, thick ones first where several do. */
function nearestLine(frame, place, x, y, reach, isShown) {
  let best = -1, least = reach;
  for (let line = 0; line < frame.weight.length; line++) {
    const a = frame.source[line], b = frame.target[line];
    const [ax, ay, bx, by] = [place.x[a], place.y[a], place.x[b], place.y[b]];
    if (y < Math.min(ay, by) - reach || y > Math.max(ay, by) + reach) continue;
    const dx = bx - ax, dy = by - ay, length = dx * dx + dy * dy || 1;
    const along = Math.max(0, Math.min(1, ((x - ax) * dx + (y - ay) * dy) / length));
    const far = Math.hypot(ax + along * dx - x, ay + along * dy - y);
    if (far < least && isShown(line)) [best, least] = [line, far];
  }
  return best;
}

/** The dot that an arrow key leads to: beside in the same row, or the nearest of the next row up or down. */
function nextDot(data, place, dot, key) {
  const rows = data.rows.map(([, row]) => row).sort((a, b) => a - b);
  const rowOf = (one) => rows.indexOf(rows.reduce((a, b) => (Math.abs(b - data.dots.y[one]) < Math.abs(a - data.dots.y[one]) ? b : a)));
  const mine = (row) => [...place.x.keys()].filter((one) => rowOf(one) === row).sort((a, b) => place.x[a] - place.x[b]);
  const row = rowOf(dot), here = mine(row), at = here.indexOf(dot);
  if (key === "ArrowLeft") return here[Math.max(0, at - 1)];
  if (key === "ArrowRight") return here[Math.min(here.length - 1, at + 1)];
  if (key === "Home") return here[0];
  if (key === "End") return here[here.length - 1];
  const to = mine(row + (key === "ArrowUp" ? 1 : -1));
  if (!to.length) return dot;
  return to.reduce((a, b) => (Math.abs(place.x[b] - place.x[dot]) < Math.abs(place.x[a] - place.x[dot]) ? b : a));
}
