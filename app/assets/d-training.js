// How behaviours form: the best head's score at each checkpoint, drawn above the slider and aligned with it.
(function () {
  const SVG = "http://www.w3.org/2000/svg";
  const [WIDTH, HEIGHT, TOP, BOTTOM] = [240, 92, 8, 14];
  const curves = new Map(); // model -> curve, or a promise of it
  let wanted = null; // [model, steps, step]

  function node(name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  async function fetchCurve(model) {
    for (let wait = 700; wait < 60000; wait *= 1.3) {
      await new Promise((resolve) => setTimeout(resolve, wait));
      if (wanted[0] !== model) return null;
      const response = await fetch(`/api/training?model=${encodeURIComponent(model)}`);
      if (!response.ok) return null;
      const found = await response.json();
      if (found.state === "done") return found.curve;
    }
    return null;
  }

  const x = (index, count) => (count > 1 ? (index / (count - 1)) * WIDTH : 0);
  const y = (value) => TOP + (1 - value) * (HEIGHT - TOP - BOTTOM);

  function draw(host, curve, steps, step) {
    const names = Object.keys(curve);
    if (!names.length) return host.replaceChildren();
    const spoken = names.map((name) => `${name} ends at ${curve[name].at(-1).toFixed(2)}`).join(", ");
    const svg = node("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
    svg.append(node("title", {}, `Best head of each behaviour over training: ${spoken}`));
    for (const value of [0, 0.5, 1]) {
      svg.append(node("line", { x1: 0, x2: WIDTH, y1: y(value), y2: y(value), class: "grid" }));
      svg.append(node("text", { x: -5, y: y(value) + 3, "text-anchor": "end" }, String(value)));
    }
    const at = x(steps.indexOf(step), steps.length);
    svg.append(node("line", { x1: at, x2: at, y1: TOP, y2: HEIGHT - BOTTOM, class: "now" }));
    names.forEach((name, index) => {
      const points = curve[name].map((value, i) => `${x(i, steps.length)},${y(value)}`);
      svg.append(node("polyline", { points: points.join(" "), class: `curve curve-${index}` }));
      curve[name].forEach((value, i) => {
        const place = { cx: x(i, steps.length), cy: y(value), r: steps[i] === step ? 3.5 : 2 };
        const dot = node("circle", { ...place, class: `dot curve-${index}` });
        const when = steps[i] === null ? "finished" : `step ${steps[i].toLocaleString("en")}`;
        dot.append(node("title", {}, `${name}, ${when}: ${value.toFixed(3)}`));
        svg.append(dot);
      });
    });
    const key = document.createElement("div");
    key.className = "training-key";
    names.forEach((name, index) => {
      const value = curve[name][steps.indexOf(step)];
      const entry = document.createElement("span");
      entry.className = `key-${index}`;
      entry.textContent = `${name} ${value === undefined ? "" : value.toFixed(2)}`;
      key.append(entry);
    });
    host.replaceChildren(key, svg);
  }

  async function load(model) {
    const coming = fetchCurve(model);
    curves.set(model, coming);
    const curve = await coming.catch(() => null);
    if (curve) curves.set(model, curve);
    else curves.delete(model); // asked for again when the model is
    if (curve && wanted && wanted[0] === model) window.workbenchTraining.show(...wanted);
  }

  window.workbenchTraining = {
    show(model, steps, step) {
      const host = document.getElementById("training");
      wanted = [model, steps, step];
      if (!host || !steps.length) return;
      const curve = curves.get(model);
      if (curve && !(curve instanceof Promise)) return draw(host, curve, steps, step);
      const hint = document.createElement("div");
      hint.className = "hint";
      hint.textContent = "Measuring heads at every checkpoint …";
      host.replaceChildren(hint);
      if (!curve) load(model);
    },
  };
})();
