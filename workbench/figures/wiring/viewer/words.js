// What is said in words: names of units, weights, and how much is drawn.

const whole = (n) => n.toLocaleString("en");

function signed(weight) {
  const size = Math.abs(weight);
  const text = size === 0 ? "0" : size < 0.001 || size >= 1000 ? size.toExponential(1) : size.toPrecision(3);
  return (weight < 0 ? "−" : "+") + text;
}

/** The place of a unit in its group: where it stands now. */
function indexOf(data, frame, dot) {
  return data.dots.index[frame.stands ? frame.stands[dot] : dot];
}

function nameOf(data, frame, dot) {
  const group = data.groups[data.dots.group[dot]], index = indexOf(data, frame, dot);
  const label = data.dots.labels[dot];
  return label ? `${label.trim() || "␣"} (${group} ${index})` : `${group} · ${index}`;
}

function spellDot(data, frame, dot, lines, threshold) {
  const shown = lines.filter((line) => Math.abs(frame.weight[line]) >= threshold);
  const into = shown.filter((line) => frame.target[line] === dot).length;
  let text = `${nameOf(data, frame, dot)}: ${whole(into)} in, ${whole(shown.length - into)} out${frame.weight.length < frame.wires ? " drawn" : ""}`;
  const best = shown.reduce((a, b) => (a < 0 || Math.abs(frame.weight[b]) > Math.abs(frame.weight[a]) ? b : a), -1);
  if (best >= 0) {
    const other = frame.source[best] === dot ? frame.target[best] : frame.source[best];
    const way = frame.source[best] === dot ? "to" : "from";
    text += `; strongest ${signed(frame.weight[best])} ${way} ${nameOf(data, frame, other)}`;
  }
  return text;
}

function spellLine(data, frame, line) {
  const ends = [frame.source[line], frame.target[line]].map((dot) => nameOf(data, frame, dot));
  return `${signed(frame.weight[line])}   ${ends[0]} → ${ends[1]}`;
}

/** How much is drawn: of the wires that are not zero, those above the threshold, and the share left out. */
function spellShown(frame, threshold) {
  const n = frame.weight.length;
  const kept = threshold > 0 ? frame.weight.reduce((sum, w) => sum + (Math.abs(w) >= threshold), 0) : n;
  const cut = threshold > 0 ? ` with |w| ≥ ${threshold.toPrecision(2)}` : "";
  if (kept === n && n < frame.wires) {
    const share = (100 * frame.leftOut).toPrecision(2);
    return `${whole(n)} of ${whole(frame.wires)} wires drawn; those left out hold ${share} % of all |w|`;
  }
  return kept === frame.wires ? `all ${whole(n)} wires drawn` : `${whole(kept)} of ${whole(frame.wires)} wires drawn${cut}`;
}
