// The training page: links between runs, the slider over snapshots, and the address that follows both.
(function () {
  const none = () => window.dash_clientside.no_update;
  const FIELDS = ["run", "at", "other", "level", "threshold", "log", "dot"];
  const DEFAULTS = { log: "on", threshold: 0, dot: "", other: "" };
  const SETTLED_MS = 350;
  const TYPED_MS = 450; // fields tell what was typed 350 ms after the last key
  let settling = 0;
  let held = null; // the newest state, between two settings of the store

  const source = (run, step) => ({ src: `/api/runs/${encodeURIComponent(run)}/wiring/${step}` });
  const label = (step) => (step === undefined ? "" : step.toLocaleString("en"));

  // While a slider is dragged only the picture follows; what the server is asked waits until it rests.
  function settle(state) {
    held = state;
    clearTimeout(settling);
    settling = setTimeout(() => {
      if (document.getElementById("run-head")) dash_clientside.set_props("run-state", { data: held });
    }, SETTLED_MS);
  }

  function queryOf(state) {
    const query = new URLSearchParams();
    for (const field of FIELDS) {
      const value = state[field];
      if (value === null || value === undefined || value === "" || value === DEFAULTS[field]) continue;
      query.set(field, value);
    }
    return query;
  }

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.training = {
    settled: (clicks) => window.workbenchSettled(clicks, TYPED_MS),

    scrub(index, steps, state) {
      if (!steps || !steps.length || steps[index] === undefined) return [none(), none()];
      const at = index === steps.length - 1 ? null : steps[index];
      if (at !== state.at) settle({ ...state, ...(held && held.run === state.run ? held : {}), at, step: steps[index] });
      return [index, label(steps[index])];
    },

    // New snapshots: whoever looks at the newest goes on doing so, whoever chose one stays there.
    follow(steps, rest, index, shown, state) {
      if (!steps || !steps.length) return [none(), none(), none(), none(), "none yet", none()];
      const found = state.at === null ? -1 : steps.indexOf(state.at);
      const place = found < 0 ? steps.length - 1 : found;
      const newest = source(state.run, steps[steps.length - 1]);
      // What is measured follows only when a run comes to rest: else it would begin anew with every snapshot.
      const isNew = state.step === null || (rest && state.seen !== `${rest} ${steps.length}`);
      return [
        Math.max(1, steps.length - 1),
        place === index ? none() : place,
        shown && shown.src === newest.src ? none() : newest,
        place,
        label(steps[place]),
        isNew ? { ...state, step: steps[place], seen: `${rest} ${steps.length}` } : none(),
      ];
    },

    gather(log, other, level, dot, threshold, state) {
      const number = level === "" || level === null || level === undefined ? null : Number(level);
      const next = {
        ...state,
        log,
        other: other || "",
        level: Number.isFinite(number) ? number : state.level,
        dot: dot && dot.group !== undefined ? `${dot.group}/${dot.index}` : state.dot,
        // Until the slider is drawn, the store says nothing of what the address asks for.
        threshold: document.getElementById("run-pruning-slider") ? threshold || 0 : state.threshold,
      };
      if (number === null) next.level = null;
      if (JSON.stringify(next) === JSON.stringify(state)) return none();
      // A slider sends many values; the other controls one each.
      if (next.threshold !== state.threshold) {
        settle(next);
        return none();
      }
      held = next;
      return next;
    },

    address(state) {
      held = state;
      if (state) window.workbenchAddress.write(queryOf(state), `run ${state.run}`);
      return none();
    },
  };

  // A link to a run opens it in place; opened in a tab, or copied, it is a link like any other.
  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest("a.run-link");
    if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    window.workbenchAddress.write(new URLSearchParams(location.search), location.search);
    window.workbenchAddress.write(new URLSearchParams(link.search), link.search);
    // What the page is built of: the same link may be followed twice.
    dash_clientside.set_props("reopen", { data: `${link.search}&again=${Date.now()}` });
  });
})();
