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

  async function addBadges(view) {
    for (let wait = 600; shown === view && wait < 60000; wait *= 1.3) {
      await new Promise((resolve) => setTimeout(resolve, wait));
      if (shown !== view) return;
      const found = await get(view.key, "/badges", (response) => response.json()).catch(() => null);
      if (shown !== view || !found) return;
      if (found.state === "done") {
        const source = { ...view.source, meta: () => Promise.resolve(found.meta) };
        view.handle.update(source, { theme: theme() });
        return;
      }
    }
  }

  function mount(key, request, state) {
    const element = document.getElementById("viewer");
    const source = sourceOf(key);
    const options = {
      theme: theme(),
      state,
      onState: (next) => dash_clientside.set_props("head", { data: next }),
    };
    let handle;
    if (shown && shown.element === element) {
      handle = shown.handle;
      handle.update(source, { theme: theme() });
    } else {
      if (shown) shown.handle.destroy();
      handle = window.WorkbenchAttention.mount(element, source, options);
    }
    shown = { key, element, handle, source, request };
    addBadges(shown);
  }

  new MutationObserver(() => {
    if (shown) shown.handle.update(shown.source, { theme: theme() });
  }).observe(root, { attributes: true, attributeFilter: ["data-mantine-color-scheme"] });

  window.workbenchViewer = {
    mount,
    unlock() {
      if (shown) shown.handle.setState({ ...shown.handle.getState(), locked: false, pos: null });
    },
  };
})();
