// The circuits and composition pages: clicks into figures and tables fill the fields of the page.
(function () {
  const none = () => window.dash_clientside.no_update;
  const point = (click) => (click && click.points && click.points.length ? click.points[0] : null);
  const set = (field, value) => dash_clientside.set_props({ type: "control", field }, { value });

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.circuits = {
    // A cell of the map of heads: rows are layers, columns heads.
    head(click) {
      const at = point(click);
      return at ? [`${at.y}.${at.x}`, ""] : [none(), none()];
    },

    offset(click) {
      const at = point(click);
      return at ? at.x : none();
    },

    // Drawn only for models whose scores depend on the offset.
    offsets(mark) {
      return !mark;
    },
  };

  // What a pair needs: reader, writer, input, and the two layers that are shown larger.
  function pair(reader, writer, through) {
    const panel = document.getElementById("composition-pair");
    if (panel) panel.scrollIntoView({ block: "nearest" });
    return [reader, writer, through, none()];
  }

  window.dash_clientside.composition = {
    // A cell of a matrix: a pair of heads, or of layers whose heads are then shown.
    cell(click) {
      const at = point(click);
      if (!at) return [none(), none(), none(), none()];
      if (!String(at.x).includes(".")) return [none(), none(), none(), `${at.y}-${at.x}`];
      return pair(at.x, at.y, "QKV"[at.curveNumber]);
    },

    // The dot on an edge; nodes have no pair.
    edge(click) {
      const at = point(click);
      if (!at || !Array.isArray(at.customdata)) return [none(), none(), none(), none()];
      const [through, writer, reader] = at.customdata;
      return pair(reader, writer, through);
    },

    rows(rows) {
      if (!rows || !rows.length) return [none(), none(), none(), none()];
      return pair(rows[0].reader, rows[0].writer, rows[0].through);
    },
  };

  document.addEventListener("click", (event) => {
    const chip = event.target.closest && event.target.closest(".token-chip");
    if (chip) set(chip.dataset.field, chip.title);
  });
})();
