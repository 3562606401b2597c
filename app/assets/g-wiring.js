// Between Dash's stores and the wiring viewer: a payload is drawn, a chosen unit is told.
(function () {
  const root = document.documentElement;
  const theme = () => (root.getAttribute("data-mantine-color-scheme") === "dark" ? "dark" : "light");
  const none = () => window.dash_clientside.no_update;
  const shown = new Map(); // id -> {element, view, data, said}

  async function fetched(src) {
    const response = await fetch(src, { credentials: "same-origin" });
    const said = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(said.error || `the server answered ${response.status}`);
    return said;
  }

  function fail(element, message) {
    const said = document.createElement("div");
    said.className = "alert";
    said.setAttribute("role", "alert");
    said.textContent = message;
    element.replaceChildren(said);
  }

  function forget(id) {
    shown.get(id)?.view?.destroy();
    shown.delete(id);
  }

  function draw(id, element, payload) {
    const known = shown.get(id);
    if (known.view) known.view.update(payload);
    else {
      known.view = window.wiring.mount(element, payload, { theme: theme() });
      element.addEventListener("wiring-dot", (event) => {
        if (shown.get(id) === known) dash_clientside.set_props(`${id}-dot`, { data: event.detail });
      });
    }
    known.view.threshold(known.threshold);
    known.view.frame(known.frame ?? payload.frames.length - 1);
  }

  async function take(id, element, data) {
    const known = shown.get(id);
    try {
      const payload = data.src ? await fetched(data.src) : data;
      if (shown.get(id) === known && known.data === data) draw(id, element, payload);
    } catch (error) {
      if (shown.get(id) !== known || known.data !== data) return;
      forget(id);
      fail(element, `The wiring cannot be drawn: ${error.message}`);
    }
  }

  new MutationObserver(() => {
    for (const { view } of shown.values()) view?.theme(theme());
  }).observe(root, { attributes: true, attributeFilter: ["data-mantine-color-scheme"] });

  const few = (x) => (x === null || x === undefined ? "not finite" : Number(x.toPrecision(3)).toString());
  const whole = (n) => n.toLocaleString("en");

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.wiring = {
    show(data, threshold, frame, id) {
      const element = document.getElementById(id);
      for (const [one, known] of shown) if (!known.element.isConnected) forget(one);
      if (!element) return none();
      if (!data) {
        forget(id);
        element.replaceChildren();
        return none();
      }
      if (!shown.has(id)) shown.set(id, { element, view: null, data: null });
      const known = shown.get(id);
      Object.assign(known, { threshold, frame });
      if (known.data !== data) {
        known.data = data;
        take(id, element, data);
      } else if (known.view) {
        known.view.threshold(threshold);
        if (Number.isInteger(frame)) known.view.frame(frame);
      }
      return none();
    },

    // A step of the slider is a threshold that was measured: nothing is asked of the server.
    prune(step, curve, figure) {
      if (!curve || !Number.isInteger(step) || step >= curve.threshold.length) return [none(), none(), none()];
      const at = (name) => curve[name][step];
      const said = step === 0
        ? `All ${whole(at("wires"))} wires: loss ${few(at("loss"))}.`
        : `${whole(at("wires"))} of ${whole(curve.wires[0])} wires with |w| ≥ ${few(at("threshold"))}: loss ` +
          `${few(at("loss"))} (${few(curve.loss[0])} with all), ${whole(at("live_units"))} live units in ` +
          (at("components") === 1 ? "one part." : `${whole(at("components"))} separate parts.`);
      const shape = figure?.layout?.shapes?.[0];
      if (!shape) return [said, at("threshold") || null, none()];
      const shapes = [{ ...shape, x0: step, x1: step }];
      return [said, at("threshold") || null, { ...figure, layout: { ...figure.layout, shapes } }];
    },
  };
})();
