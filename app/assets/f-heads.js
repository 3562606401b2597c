// A click on a head's point or row chooses it.
(function () {
  const none = () => window.dash_clientside.no_update;

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.heads = {
    clickData(click) {
      const label = click && click.points[0].text;
      return label || none();
    },
    selectedRows(rows) {
      return rows && rows.length ? rows[0].name : none();
    },
  };
})();
