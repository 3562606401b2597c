// The paths page: clicks that open the tree, check a path, or lead to the head of an edge.
(function () {
  const none = () => window.dash_clientside.no_update;
  const set = (field, value) => dash_clientside.set_props({ type: "control", field }, { value });
  const valueOf = (field) => document.querySelector(`[id*='"field":"${field}"']`)?.value || "";
  let focused = null; // the chain whose button was pressed: the tree is drawn anew under it

  // A chain is closed together with everything that was opened behind it.
  function toggled(chain) {
    const open = valueOf("through").split(";").filter(Boolean);
    const rest = open.filter((one) => one !== chain && !one.endsWith(`,${chain}`));
    return (open.includes(chain) ? rest : [...open, chain]).join(";");
  }

  function check(label) {
    set("check", label);
    document.getElementById("paths-check")?.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.paths = {
    kind(state) {
      const isScore = state.what === "score";
      return [isScore, !isScore, !isScore];
    },

    row(rows) {
      if (!rows || !rows.length) return none();
      check(rows[0].path);
      return none();
    },

    // The dot on an edge of a head: its attention, at the position that it writes to.
    edge(click, state) {
      const at = click?.points?.[0]?.customdata;
      if (!at || at[0] !== "head") return none();
      const query = new URLSearchParams({ model: state.model, prompt: state.prompt });
      if (state.step !== null) query.set("step", state.step);
      for (const [name, value] of [["head", at[1]], ["locked", 1], ["pos", at[2]]]) query.set(name, value);
      location.assign(`/?${query}`);
      return none();
    },

    // A wide flow opens where the number is asked; who has scrolled stays there.
    flowing(drawn, state) {
      const wait = (left) => {
        const plot = document.querySelector("#paths-flow-graph .js-plotly-plot");
        const box = plot?.closest(".figure");
        if (!plot?._fullLayout?.xaxis) return left && setTimeout(() => wait(left - 1), 100);
        const at = state.what === "logit" ? (state.pos ?? Infinity) : (state[state.side] ?? 0);
        const share = Math.min(1, at / Math.max(1, plot._fullLayout.xaxis.range[1]));
        if (!box.scrollLeft) box.scrollLeft = share * box.scrollWidth - 0.8 * box.clientWidth;
        return null;
      };
      if (drawn) wait(30);
      return none();
    },

    opened() {
      if (focused === null) return none();
      const wanted = focused;
      const buttons = () => [...document.querySelectorAll(".path-toggle")];
      setTimeout(() => {
        const button = buttons().find((one) => one.dataset.chain === wanted);
        if (button && document.activeElement !== button) button.focus({ preventScroll: true });
      }, 0);
      focused = null;
      return none();
    },
  };

  document.addEventListener("click", (event) => {
    if (!event.target.closest) return;
    const toggle = event.target.closest(".path-toggle");
    if (toggle) {
      focused = toggle.dataset.chain;
      set("through", toggled(toggle.dataset.chain));
    }
    const asked = event.target.closest(".path-check");
    if (asked) check(asked.dataset.check);
  });
})();
