/* The wiring viewer. A plain script: sets window.wiring = { mount, decode, lastRedrawMs }.
 *
 *   const view = window.wiring.mount(element, payload, options);
 *   options  { theme: "light" | "dark", threshold, height, title: bool, slider: bool, still: bool }
 *   view     { update(payload), threshold(value), frame(number), select(group, index), theme(name), redraw(), destroy() }
 *
 * A chosen unit is told by the event "wiring-dot" on the element: detail {group, index, label, frame, step}, or
 * null when none is chosen any more. All texts of a network reach the page by textContent or fillText only.
 */

function mount(element, payload, options) {
  const view = new View(element, payload, { ...options });
  return {
    update: (next) => view.update(next),
    threshold: (value) => view.threshold(value === null || value === undefined ? 0 : value),
    frame: (number) => view.show(number),
    select: (group, index) => view.choose(view.find(group, index)),
    selected: () => view.name(view.chosen),
    theme(name) {
      view.options.theme = name;
      view.restyle();
    },
    redraw: () => view.paint(),
    place: (group, index) => {
      const dot = view.find(group, index);
      return dot < 0 ? null : { x: view.place.x[dot], y: view.place.y[dot] };
    },
    destroy: () => view.destroy(),
  };
}

const api = { mount, decode, lastRedrawMs: null };
window.wiring = api;
