// The reports page: the address follows what is looked at, cells link to heads, values are coloured.
(function () {
  const none = () => window.dash_clientside.no_update;
  const FIELDS = ["report", "measure", "of", "whose", "order", "where", "new", "models", "steps", "probes", "data", "title", "find"];
  const DEFAULTS = { of: "largest", steps: "final", data: "stdlib" };
  const TYPED_MS = 600; // fields tell what was typed up to 500 ms after the last key
  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

  function queryOf(state) {
    const query = new URLSearchParams();
    for (const field of FIELDS) {
      const value = state[field];
      if (value === null || value === undefined || value === "" || value === DEFAULTS[field]) continue;
      query.set(field, value);
    }
    return query;
  }

  const changed = (next, state) => (same(next, state) ? none() : next);

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.reports = {
    settled: (clicks) => window.workbenchSettled(clicks, TYPED_MS),

    look(measure, of, whose, auto, filter, asked, state) {
      const next = { ...state };
      if (measure && auto) next.measure = measure === auto ? "" : measure;
      if (of) next.of = of;
      if (whose !== null && whose !== undefined) next.whose = whose;
      if (filter) next.where = Object.keys(filter).length ? JSON.stringify(filter) : "";
      if (asked && asked.sortModel) next.order = asked.sortModel.map((one) => `${one.colId}:${one.sort}`).join(",");
      return changed(next, state);
    },

    fill(models, steps, data, title, checked, ids, state) {
      const chosen = ids.filter((id, at) => checked[at]).map((id) => id.probe);
      const probes = same(chosen, state.quick) ? "" : chosen.length ? chosen.join(",") : "none";
      return changed({ ...state, models: (models || []).join(","), steps, data, title, probes }, state);
    },

    find(words, state) {
      return changed({ ...state, find: words || "" }, state);
    },

    address(state) {
      if (state) window.workbenchAddress.write(queryOf(state), `report ${state.report || "new"}`);
      return none();
    },

    // New results: the rows that are shown are asked for again.
    refresh(data) {
      const grid = data && document.getElementById("report-grid") && window.dash_ag_grid;
      if (grid) grid.getApiAsync("report-grid").then((api) => api.refreshInfiniteCache());
      return none();
    },

    choose(quick, all, no, ids, state) {
      const by = dash_clientside.callback_context.triggered_id;
      if (!by || !(quick || all || no)) return ids.map(none);
      return ids.map((id) => (by === "report-choose-all" ? true : by === "report-choose-quick" && state.quick.includes(id.probe)));
    },
  };

  // Orange below zero, white at zero, blue above, as in figures; dark text but on the darkest.
  const BELOW = [224, 130, 20];
  const ABOVE = [67, 147, 195];
  const functions = (window.dashAgGridFunctions = window.dashAgGridFunctions || {});
  functions.reportShade = (value, limit) => {
    if (value === null || value === undefined) return { backgroundColor: "transparent" };
    const share = Math.min(1, Math.abs(value) / limit);
    const to = value < 0 ? BELOW : ABOVE;
    const mixed = to.map((part) => Math.round(255 + share * (part - 255)));
    return { backgroundColor: `rgb(${mixed.join(",")})`, color: "#14181d" };
  };
  functions.reportHeads = (a, b) => {
    const [x, y] = [a, b].map((head) => head.split(".").map(Number));
    return x[0] - y[0] || x[1] - y[1];
  };

  const parts = (window.dashAgGridComponentFunctions = window.dashAgGridComponentFunctions || {});
  const link = (href, text, label, className) =>
    window.React.createElement("a", { href, className, title: label, "aria-label": label, key: label }, text);

  parts.HeadLinks = (props) => {
    const row = props.data || {};
    if (!row.card) return null;
    const head = `${row.layer}.${row.head} of ${row.model}`;
    return [link(row.card, "card", `Card of ${head}`, "report-head"), " ", link(row.attention, "attention", `Attention of ${head}`, "report-head")];
  };

  const digits = (value) => (Math.abs(value) >= 1e4 || (value && Math.abs(value) < 1e-3) ? value.toExponential(1) : String(Number(value.toPrecision(3))));
  parts.HeadValue = (props) => {
    if (props.value === null || props.value === undefined) return null;
    const field = props.column.getColId();
    const open = (props.data.links || {})[field] || {};
    const shown = digits(props.value);
    if (!open.card) return shown;
    const head = `${props.data.head}, ${props.named}`;
    return [link(open.card, shown, `Card of ${head}: ${props.value}`, "report-value"), link(open.attention, "◎", `Attention of ${head}`, "report-look")];
  };
})();
