/* Attention viewer: heads as thumbnails, one head large, the text itself as a strip of tokens.
 *
 * A plain script: sets globalThis.WorkbenchAttention = { mount, render, decode, sources, … }.
 *
 *   const view = WorkbenchAttention.mount(element, source, options);
 *   source   { meta() -> Promise<object>, layer(l) -> Promise<bytes>, cross(l, h, pos) -> Promise<{row, column}> }
 *   options  { theme: "light" | "dark", state: {layer, head, locked, pos}, height, onState(state) }
 *   view     { update(source, options), setState(state), getState(), destroy() }
 *
 * Every text of the model reaches the page by textContent or fillText only: a token is never markup.
 */

function fromBase64(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

const sources = {
  /** Everything in one object, as in the exported page: payloads and exact values in base64. */
  embedded({ meta, layers, exact }) {
    const source = {
      meta: async () => meta,
      layer: async (layer) => fromBase64(layers[layer]),
    };
    if (exact) source.cross = (layer, head, pos) => exactFrom(exact[layer], meta, head, pos);
    return source;
  },

  /** A notebook: payloads lie in the widget's traits; exact lines are asked of the kernel. */
  widget(model) {
    const open = new Map();
    let next = 0;
    const heard = (content, buffers) => {
      const asked = open.get(content.id);
      if (!asked) return;
      open.delete(content.id);
      if (content.error) asked.reject(new Error(content.error));
      else asked.resolve(content.cross || asBytes(buffers[0]));
    };
    model.on("msg:custom", heard);
    const ask = (request) => new Promise((resolve, reject) => {
      const id = ++next;
      open.set(id, { resolve, reject });
      setTimeout(() => open.delete(id) && reject(new Error("the kernel did not answer")), 60000);
      model.send({ ...request, id });
    });
    return {
      meta: async () => model.get("meta"),
      layer: async (layer) => {
        const sent = model.get("payloads")[String(layer)];
        return sent ? asBytes(sent) : ask({ ask: "layer", layer });
      },
      cross: (layer, head, pos) => ask({ ask: "cross", layer, head, pos }),
      close: () => model.off("msg:custom", heard),
    };
  },
};

const floats = new WeakMap();

async function exactFrom(packed, meta, head, pos) {
  if (!floats.has(packed)) floats.set(packed, gunzip(fromBase64(packed.data)).then((bytes) => new Float32Array(bytes.buffer)));
  const values = await floats.get(packed);
  const [queries, keys] = [meta.query_tokens.length, meta.key_tokens.length];
  const at = (query, key) => values[(head * queries + query) * keys + key];
  return {
    row: pos < queries ? Array.from({ length: keys }, (_, key) => at(pos, key)) : [],
    column: pos < keys ? Array.from({ length: queries }, (_, query) => at(query, pos)) : [],
  };
}

function mount(element, source, options) {
  const view = new View(element, source, options || {});
  return {
    update: (nextSource, nextOptions) => view.update(nextSource, nextOptions),
    setState: (state) => view.setState(state),
    getState: () => view.getState(),
    destroy: () => view.destroy(),
  };
}

/** anywidget's entry: `export default { render }`. */
function render({ model, el }) {
  const source = sources.widget(model);
  const onState = (state) => {
    model.set("state", state);
    model.save_changes();
  };
  const view = mount(el, source, { theme: model.get("theme") || undefined, state: model.get("state"), height: model.get("height"), onState });
  const moved = () => view.setState(model.get("state"));
  model.on("change:state", moved);
  return () => {
    model.off("change:state", moved);
    source.close();
    view.destroy();
  };
}

const api = { mount, render, decode, sources, visible, lastRedrawMs: null, firstPaintMs: null };
globalThis.WorkbenchAttention = api;
