// The address bar follows what is looked at, so that it can be shared; Back returns to earlier places.
(function () {
  const SHARED = ["model", "step", "prompt", "head"]; // what the other pages are told, where it says something
  const pathOf = () => location.pathname + location.search;
  let written = pathOf(); // the address as this page knows it
  let entry = null; // what of it counts as a place to come back to

  window.workbenchAddress = {
    // A step back for each new place, none for what changes on the way.
    write(query, place) {
      const address = `${location.pathname}?${query}`;
      if (address !== pathOf()) {
        const push = entry !== null && place !== entry;
        history[push ? "pushState" : "replaceState"](history.state, "", address);
      }
      entry = place;
      written = pathOf();
    },

    // The query of another page: the same model, step, prompt and head.
    shared() {
      const here = new URLSearchParams(location.search);
      return new URLSearchParams(SHARED.filter((name) => here.has(name)).map((name) => [name, here.get(name)]));
    },
  };

  // The page of an address is built by the server; a jump within the page changes no query.
  addEventListener("popstate", () => pathOf() !== written && location.reload());

  // Links between pages are completed before they can be followed, opened in a tab or copied.
  for (const kind of ["pointerover", "focusin", "pointerdown"]) {
    document.addEventListener(kind, (event) => {
      const link = event.target.closest && event.target.closest("header nav a");
      if (link) link.search = String(window.workbenchAddress.shared());
    });
  }
})();
