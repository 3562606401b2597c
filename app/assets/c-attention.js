// The attention page's callbacks that need no server.
(function () {
  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
  const element = (id) => document.getElementById(id);
  const label = (step) => (step === null ? "finished" : step.toLocaleString("en"));

  function triggered() {
    return dash_clientside.callback_context.triggered.map((trigger) => trigger.prop_id);
  }

  // A prompt that no server would take is refused here, and never becomes an address.
  let refused = false;
  function refuse(texts, limit) {
    const length = Math.max(...texts.map((text) => (text || "").length));
    const was = refused;
    refused = length > limit;
    if (refused) say("alert", `the prompt is longer than ${limit.toLocaleString("en")} characters, the most that the dashboard takes: shorten it, or use workbench.run in Python`);
    else if (was) dash_clientside.set_props("alert", { children: null });
    return refused;
  }

  function say(id, text) {
    const props = { children: text, className: "alert", role: "alert" };
    dash_clientside.set_props(id, { children: { type: "Div", namespace: "dash_html_components", props } });
  }

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.attention = {
    // The one description of what is asked for, from every control.
    request(runs, chosen, prompt, other, kind, step, before, previous) {
      const pressed = triggered().some((id) => id.startsWith("run."));
      if (pressed) {
        // Run does not wait for the pause that typing would.
        prompt = element("prompt").value;
        other = element("other-prompt") ? element("other-prompt").value : other;
      }
      const steps = chosen.steps.length ? chosen.steps : [null];
      const at = (index) => steps[Math.min(index, steps.length - 1)];
      const request = {
        model: chosen.model,
        prompt,
        kind,
        other,
        step: at(step),
        before: at(before),
      };
      const { again, ...old } = previous || {};
      const asked = kind === "difference" ? [prompt, other] : [prompt];
      const changed = !refuse(asked, chosen.limit) && (pressed || !same(request, old));
      return [
        changed ? (pressed ? { ...request, again: runs } : request) : dash_clientside.no_update,
        kind !== "difference",
        kind !== "training",
        chosen.hints[kind],
        label(request.step),
        label(request.before),
      ];
    },

    // An example brings its partner along, unless the reader has written one.
    example(clicks, chosen, other) {
      const trigger = dash_clientside.callback_context.triggered[0];
      if (!trigger || !trigger.value) return [dash_clientside.no_update, dash_clientside.no_update];
      const { index } = JSON.parse(trigger.prop_id.split(".n_clicks")[0]);
      const mine = other && !chosen.others.includes(other);
      return [chosen.examples[index], mine ? dash_clientside.no_update : chosen.others[index]];
    },

    // A mean starts with several prompts, everything else with one.
    shape(kind, prompt, chosen) {
      if (kind === "mean" && chosen.examples.includes(prompt)) return chosen.mean;
      if (kind !== "mean" && prompt === chosen.mean) return chosen.examples[0];
      return dash_clientside.no_update;
    },

    mount(shown, state, request, chosen) {
      if (shown && shown.key) window.workbenchViewer.mount(shown, request, state, chosen.first);
      return dash_clientside.no_update;
    },

    // A link that can be shared, without running the page's layout again: a step back for each model,
    // kind of view and run, none for what the pointer passes over.
    address(request, state) {
      if (!request) return dash_clientside.no_update;
      const query = new URLSearchParams();
      query.set("model", request.model);
      query.set("prompt", request.prompt || "");
      query.set("view", request.kind);
      if (request.kind === "difference") query.set("other", request.other || "");
      if (request.step !== null) query.set("step", request.step);
      if (request.kind === "training") {
        query.set("before", request.before === null ? "final" : request.before);
      }
      if (state && Number.isInteger(state.layer) && Number.isInteger(state.head)) {
        query.set("head", `${state.layer}.${state.head}`);
        if (state.locked) query.set("locked", "1");
        if (Number.isInteger(state.pos)) query.set("pos", state.pos);
      }
      const place = JSON.stringify([request.model, request.kind, request.again]);
      window.workbenchAddress.write(query, place);
      return dash_clientside.no_update;
    },

    // A held head leads to what its score is the sum of, at the token that is held; a mean has no one prompt.
    why(shown, state, request) {
      const isHeld = shown && state && state.locked && Number.isInteger(state.layer) && request.kind !== "mean";
      if (!isHeld) return [dash_clientside.no_update, true];
      const query = new URLSearchParams({ model: request.model, prompt: request.prompt, what: "score" });
      query.set("head", `${state.layer}.${state.head}`);
      if (request.step !== null) query.set("step", request.step);
      if (Number.isInteger(state.pos)) query.set("query", state.pos);
      return [`/paths?${query}`, false];
    },

    training(request, shown, chosen) {
      if (shown && request) window.workbenchTraining.show(chosen.model, chosen.steps, request.step);
      return dash_clientside.no_update;
    },

    code(clicks, hidden) {
      return !hidden;
    },

    copy(clicks, code) {
      if (!clicks) return dash_clientside.no_update;
      navigator.clipboard.writeText(code).then(
        () => dash_clientside.set_props("code-copy", { children: "Copied" }),
        () => {
          // Without permission the text is marked, ready for Ctrl-C.
          getSelection().selectAllChildren(element("code"));
          dash_clientside.set_props("code-copy", { children: "Press Ctrl-C" });
        },
      );
      setTimeout(() => dash_clientside.set_props("code-copy", { children: "Copy" }), 2000);
      return dash_clientside.no_update;
    },
  };

  // A downloaded page opens at the head that is looked at.
  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest("#download");
    if (link) link.search = window.workbenchViewer.selection();
  }, true);

  document.addEventListener("keydown", (event) => {
    const target = event.target;
    const writing = target.closest && target.closest("input, textarea, [contenteditable]");
    if (event.key === "/" && !writing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      const prompt = element("prompt") || document.querySelector(".work-page textarea");
      if (!prompt) return;
      prompt.focus();
      prompt.select();
      event.preventDefault();
    } else if (event.key === "Escape" && !writing && element("viewer")) {
      window.workbenchViewer.unlock();
    } else if (event.key === "Escape" && target.tagName === "TEXTAREA") {
      target.blur();
    } else if (event.key === "Enter" && element("run") && target.tagName === "TEXTAREA" && runsOn(event)) {
      event.preventDefault();
      element("run").click();
    }
  });

  // Enter runs one prompt; where a line is a prompt of its own, Ctrl-Enter does.
  function runsOn(event) {
    if (event.isComposing) return false;
    if (event.ctrlKey || event.metaKey) return true;
    const mean = new URLSearchParams(location.search).get("view") === "mean";
    return !event.shiftKey && !mean;
  }
})();
