// A server that does not answer, or refuses, is said on the page; once it answers again, so is nothing.
(function () {
  const plain = window.fetch.bind(window);
  const CALLBACK = "/_dash-update-component";
  const REFUSED = {
    401: "the server asks for its token again: open the address that it printed when it started",
    413: "the server takes no request of that size: shorten the prompt",
    500: "internal error: the server's log says more",
  };
  let said = "";
  let timer = 0;

  function say(text) {
    if (text === said || !window.dash_clientside.set_props || !document.getElementById("offline")) return;
    said = text;
    const props = { children: text, className: "alert", role: "alert" };
    const box = text ? { type: "Div", namespace: "dash_html_components", props } : null;
    window.dash_clientside.set_props("offline", { children: box });
  }

  // What failed is asked for again, and found out by itself: nobody has to press anything.
  function lost() {
    say("the server does not answer");
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const answer = await plain("/viewer/viewer.css", { method: "HEAD" }).catch(() => null);
      if (!answer) return lost();
      say("");
      const run = document.getElementById("run");
      if (run) run.click();
      for (const again of document.querySelectorAll(".panel > .plain-button")) again.click();
    }, 3000);
  }

  window.fetch = async function (resource, options) {
    const path = new URL(resource.url || resource, location.href).pathname;
    let response;
    try {
      response = await plain(resource, options);
    } catch (error) {
      if (error.name !== "AbortError") lost();
      throw error;
    }
    if (path === CALLBACK) {
      const refused = response.status >= 400;
      say(refused ? REFUSED[response.status] || `the server refused: ${response.status}` : "");
    }
    return response;
  };
})();
