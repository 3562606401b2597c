// Clicks into the lens: a cell is a position and a predicted token.
(function () {
  const none = () => window.dash_clientside.no_update;
  const chosen = (cells, state) => (Number.isInteger(state.pos) ? state.pos : cells.n_pos - 1) - cells.start;

  function reveal(cells, state) {
    const box = document.getElementById("lens-graph")?.closest(".figure");
    if (!box || !cells) return;
    const share = (chosen(cells, state) + 0.5) / (cells.n_pos - cells.start);
    const at = share * (box.scrollWidth - 160) + 80;
    if (at < box.scrollLeft + 60 || at > box.scrollLeft + box.clientWidth - 60) box.scrollLeft = at - box.clientWidth / 2;
  }

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.residual = {
    cell(click, cells) {
      if (!click || !cells) return [none(), none()];
      const point = click.points[0];
      const pos = parseInt(point.x, 10); // labels begin with the position
      const layer = cells.labels.indexOf(point.y);
      return [pos, cells.spelled[layer][pos]];
    },

    // The framed position is brought into view when the grid is drawn, and when it moves.
    show(cells, state) {
      // Plotly lays the grid out some time after it is told to.
      const wait = (left) => {
        const box = document.getElementById("lens-graph")?.closest(".figure");
        if (box?.querySelector(".heatmaplayer image, .heatmaplayer .hm")) reveal(cells, state);
        else if (left) setTimeout(() => wait(left - 1), 100);
      };
      if (cells) wait(50);
      return none();
    },

    // Only the frame moves: the figure's data stay the same object, so nothing is drawn anew.
    frame(state, cells, figure) {
      const shape = figure && figure.layout.shapes && figure.layout.shapes[0];
      if (!shape || !cells) return none();
      const pos = chosen(cells, state);
      reveal(cells, state);
      if (shape.x0 === pos - 0.5) return none();
      const shapes = [{ ...shape, x0: pos - 0.5, x1: pos + 0.5 }];
      return { ...figure, layout: { ...figure.layout, shapes } };
    },
  };
})();
