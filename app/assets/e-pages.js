// Pages of panels: every control fills one field of the page's state, and the address follows the state.
(function () {
  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
  const control = (field) => ({ type: "control", field });
  const label = (step) => (step === null ? "finished" : step.toLocaleString("en"));
  const none = () => window.dash_clientside.no_update;

  // A press of Start, passed on once the fields have told what was typed last.
  window.workbenchSettled = (clicks, ms) => (clicks ? new Promise((resolve) => setTimeout(() => resolve(clicks), ms)) : none());

  function gathered(previous, known) {
    const next = { ...previous };
    for (const { id, value } of dash_clientside.callback_context.inputs_list[0]) {
      const list = known.lookups[id.field];
      next[id.field] = value === undefined || value === "" ? emptyOf(previous, id.field) : list ? list[value] : value;
      const shown = document.querySelector(`[data-shows="${id.field}"]`);
      if (shown) shown.textContent = list ? label(next[id.field]) : next[id.field];
    }
    return next;
  }

  // Emptied text is text; an emptied number is no number.
  const emptyOf = (previous, field) => (typeof previous[field] === "string" ? "" : null);

  // Fields whose value meant something only with what is gone; the control is told where the page stays.
  function reset(next, known, spans, stays) {
    for (const [field, lasts] of Object.entries(known.lasts)) {
      if (!spans.includes(lasts)) continue;
      next[field] = field in known.defaults ? known.defaults[field] : null;
      const value = next[field] === null ? "" : next[field];
      const shown = stays && document.querySelector(`[id*='"field":"${field}"']`);
      // Afterwards: a callback that sets what it reads would be called again before it ends.
      if (shown) setTimeout(() => dash_clientside.set_props(control(field), { value }), 0);
    }
  }

  function queryOf(state, known) {
    const query = new URLSearchParams();
    for (const [field, value] of Object.entries(state)) {
      if (value === null || value === undefined || same(value, known.defaults[field])) continue;
      query.set(field, value);
    }
    return query;
  }

  // Nobody waits here any more: what is still computed for this page may end.
  function leave() {
    const waiting = document.querySelectorAll(".working:not([hidden]) [data-key]");
    const keys = [...waiting].map((element) => element.dataset.key);
    if (!keys.length) return;
    const body = JSON.stringify(keys);
    fetch("/api/leave", { method: "POST", keepalive: true, headers: { "Content-Type": "application/json" }, body }).catch(() => {});
  }
  addEventListener("pagehide", leave);

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.pages = {
    gather(values, previous, known) {
      const next = gathered(previous, known);
      if (next.model !== previous.model) {
        // The server builds the page anew: each model has its own steps, examples and heads.
        reset(next, known, ["model", "prompt"], false);
        if (known.examples.includes(next.prompt)) delete next.prompt;
        delete next.step;
        leave();
        return [none(), `?${queryOf(next, known)}`];
      }
      if (next.prompt !== previous.prompt) reset(next, known, ["prompt"], true);
      return [same(next, previous) ? none() : next, none()];
    },

    address(state, known) {
      const place = JSON.stringify(known.places.map((field) => state[field]));
      window.workbenchAddress.write(queryOf(state, known), place);
      return none();
    },
  };

  function copied(button, said) {
    button.textContent = said;
    setTimeout(() => (button.textContent = "Copy code"), 2000);
  }

  document.addEventListener("click", (event) => {
    if (!event.target.closest) return;
    const example = event.target.closest(".page-example");
    if (example) dash_clientside.set_props(control("prompt"), { value: example.title });
    const copy = event.target.closest(".copy-code");
    if (copy) {
      const code = copy.parentElement.querySelector("pre");
      navigator.clipboard.writeText(code.textContent).then(
        () => copied(copy, "Copied"),
        () => {
          // Without permission the text is marked, ready for Ctrl-C.
          getSelection().selectAllChildren(code);
          copied(copy, "Press Ctrl-C");
        },
      );
    }
    for (const open of document.querySelectorAll(".code-of-panel[open]")) {
      if (!open.contains(event.target)) open.open = false;
    }
  });

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      for (const open of document.querySelectorAll(".code-of-panel[open]")) open.open = false;
    }
    // Enter does not wait for the pause that typing would.
    const box = event.target.closest && event.target.closest(".work-page textarea");
    if (box && event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      dash_clientside.set_props(control("prompt"), { value: box.value });
    }
  });
})();
