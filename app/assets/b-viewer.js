// Between Dash's stores and the attention viewer: numbers are fetched by the key of a view.
(function () {
  const root = document.documentElement;
  const theme = () => (root.getAttribute("data-mantine-color-scheme") === "dark" ? "dark" : "light");
  let shown = null; // {key, element, handle, source}
  let lastRetry = 0;

  async function get(key, path, read) {
    const response = await fetch(`/api/attention/${key}${path}`, { credentials: "same-origin" });
    if (response.ok) return read(response);
    if (response.status === 404) makeAgain(key);
    const said = await response.json().catch(() => ({}));
    throw new Error(said.error || `the server answered ${response.status}`);
  }

  // A key leaves the server's memory when newer views need the room, or with a restart: ask for it again.
  function makeAgain(key) {
    if (!shown || shown.key !== key || Date.now() - lastRetry < 5000) return;
    lastRetry = Date.now();
    shown.key = null; // the same key, once it is back, counts as new
    dash_clientside.set_props("request", { data: { ...shown.request, again: lastRetry } });
  }

  function sourceOf(key) {
    const kept = new Map();
    const once = (path, read) => {
      if (!kept.has(path)) {
        const answer = get(key, path, read);
        answer.catch(() => kept.delete(path));
        kept.set(path, answer);
      }
      return kept.get(path);
    };
    return {
      meta: () => once("/meta", (response) => response.json()),
      layer: (layer) => once(`/layer/${layer}`, (response) => response.arrayBuffer()),
      cross: (layer, head, pos) => once(`/cross/${layer}/${head}/${pos}`, (response) => response.json()),
    };
  }

  // The viewer builds its page anew for a new source: what it will draw first is fetched before that.
  async function ready(source, layer) {
    const meta = await source.meta();
    const first = meta.layers.length <= 4 ? meta.layers.map((_, index) => index) : [layer];
    await Promise.all(first.filter((index) => meta.layers[index]).map((index) => source.layer(index)));
  }

  async function swap(view, source, state) {
    const { layer } = state || view.handle.getState();
    await ready(source, layer).catch(() => null); // the viewer shows what failed, with a way to retry
    if (shown !== view) return;
    const grid = view.element.querySelector(".wba-grid");
    const place = grid && { top: grid.scrollTop, left: grid.scrollLeft, old: grid };
    const focused = view.element.contains(document.activeElement);
    view.handle.update(source, state ? { theme: theme(), state } : { theme: theme() });
    if (state) dash_clientside.set_props("head", { data: state });
    if (place) restore(view, place, focused, 60);
  }

  // A rebuilt page starts at its top, without focus: go back to where the reader was.
  function restore(view, place, focused, tries) {
    const grid = view.element.querySelector(".wba-grid");
    if (!grid || grid === place.old) {
      if (tries && shown === view) requestAnimationFrame(() => restore(view, place, focused, tries - 1));
      return;
    }
    grid.scrollTo(place.left, place.top);
    const { layer, head } = view.handle.getState();
    const button = grid.querySelector(`button[data-layer="${layer}"][data-head="${head}"]`);
    if (focused && button) button.focus({ preventScroll: true });
  }

  async function addBadges(view) {
    const known = await view.source.meta().catch(() => null);
    if (!known || Object.keys(known.badges).length) return;
    for (let wait = 500; shown === view && wait < 60000; wait *= 1.3) {
      await new Promise((resolve) => setTimeout(resolve, wait));
      if (shown !== view) return;
      const found = await get(view.key, "/badges", (response) => response.json()).catch(() => null);
      if (shown !== view || !found) return;
      if (found.state === "working") continue;
      if (Object.keys(found.meta.badges).length) {
        view.source = { ...view.source, meta: () => Promise.resolve(found.meta) };
        await swap(view, view.source);
      }
      return;
    }
  }

  // Another model opens at the head that it is known for, unless the reader holds one.
  function mount({ key, model }, request, state, first) {
    const element = document.getElementById("viewer");
    if (shown && shown.element === element) {
      if (shown.key === key) return;
      const isNew = shown.model !== model && !shown.handle.getState().locked && first.layer !== null;
      shown = { key, model, element, handle: shown.handle, source: sourceOf(key), request };
      swap(shown, shown.source, isNew ? first : undefined);
    } else {
      if (shown) shown.handle.destroy();
      const source = sourceOf(key);
      const onState = (next) => dash_clientside.set_props("head", { data: next });
      const handle = window.WorkbenchAttention.mount(element, source, { theme: theme(), state, onState });
      shown = { key, model, element, handle, source, request };
    }
    addBadges(shown);
  }

  new MutationObserver(() => {
    if (shown) shown.handle.update(shown.source, { theme: theme() });
  }).observe(root, { attributes: true, attributeFilter: ["data-mantine-color-scheme"] });

  window.workbenchViewer = {
    mount,
    selection() {
      if (!shown) return "";
      const { layer, head, locked, pos } = shown.handle.getState();
      const query = new URLSearchParams({ head: `${layer}.${head}` });
      if (locked) query.set("locked", "1");
      if (pos !== null) query.set("pos", pos);
      return `?${query}`;
    },
    unlock() {
      if (!shown) return;
      const state = shown.handle.getState();
      if (!state.locked && state.pos === null) return;
      const free = { ...state, locked: false, pos: null };
      shown.handle.setState(free);
      dash_clientside.set_props("head", { data: free });
    },
  };
})();
