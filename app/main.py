"""The dashboard: `create_app(session)`. Pages are modules, listed here and nowhere else."""

import logging
from typing import Any
from urllib.parse import parse_qsl

import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, set_props
from flask import Response, request

from app import api, downloads, report_routes, run_routes
from app.components import alert, aria, attributes, icon_button
from app.page import REOPEN, register_state
from app.pages import attention, circuits, composition, heads, paths, reports, residual, training
from app.security import harden
from app.session import Session
from workbench.errors import WorkbenchError

PAGES = (attention, residual, paths, circuits, composition, heads, training, reports)
PROVIDER, URL, PAGE, THEME = "provider", "url", "page", "theme"
NAV, SKIP, FAILED, OFFLINE = "nav", "skip", "failed", "offline"
MAX_QUERY_FIELDS = 32
log = logging.getLogger("workbench.app")


def create_app(session: Session, *, hosts: tuple[str, ...] = (), token: str | None = None) -> Dash:
    """The finished, guarded dashboard of one session.

    Args:
        hosts: further host names under which it may be addressed.
        token: what a visitor must show; None asks for nothing.
    """
    app = Dash(
        __name__,
        title="Interpretability workbench",
        update_title="",
        serve_locally=True,
        # Written out, so that no DASH_… variable of the environment can change them.
        requests_pathname_prefix="/",
        routes_pathname_prefix="/",
        enable_mcp=False,
        suppress_callback_exceptions=True,
        on_error=_on_error,
        external_scripts=["/viewer/viewer.js", "/viewer/wiring.js"],
        external_stylesheets=["/viewer/viewer.css", "/viewer/wiring.css"],
    )
    app.enable_dev_tools(
        debug=False,
        dev_tools_ui=False,
        dev_tools_props_check=False,
        dev_tools_serve_dev_bundles=False,
        dev_tools_hot_reload=False,
        dev_tools_silence_routes_logging=False,
        dev_tools_disable_version_check=True,
    )
    app.layout = _shell()
    downloads.register(app.server, session)
    run_routes.register(app.server, session.runs)
    report_routes.register(app.server, session.reports)
    api.register(app.server, session)
    _register_shell(app, session)
    register_state(app)
    for page in PAGES:
        page.register(app, session)
    _answer_lost_pages(app)
    app.server.config["PROPAGATE_EXCEPTIONS"] = False
    # The hashes of inline scripts are only complete once Dash has taken the callbacks in.
    harden(app, hosts=hosts, token=token)
    return app


def _answer_lost_pages(app: Dash) -> None:
    """Dash serves its page at every path; where there is none, the status must say so."""

    @app.server.after_request
    def status(response: Response) -> Response:
        is_page = response.status_code == 200 and request.endpoint == "/<path:path>"
        if is_page and find_page(request.path) is None:
            response.status_code = 404
        return response


def find_page(path: str | None) -> Any:
    """The page at a path, or None."""
    return next((page for page in PAGES if (path or "/") == page.PATH), None)


def _shell() -> dmc.MantineProvider:
    return dmc.MantineProvider(
        id=PROVIDER,
        defaultColorScheme="auto",
        theme={"fontFamily": "var(--workbench-font)", "primaryColor": "blue"},
        children=[
            dcc.Location(id=URL, refresh=False),
            # A page that asks to be built anew, for another model, writes its query here.
            dcc.Store(id=REOPEN),
            html.A("Skip to the content", id=SKIP, href="#viewer", className="skip"),
            html.Header(
                [
                    html.H1("Interpretability workbench", className="brand"),
                    html.Nav(_links(None), id=NAV, **aria("Pages")),
                    icon_button("theme", "Change between light and dark", id=THEME),
                ],
                className="top",
            ),
            html.Div([html.Div(id=OFFLINE, role="status"), html.Div(id=FAILED)], className="said"),
            html.Main(id=PAGE),
        ],
    )


def _links(current: Any) -> list[html.A]:
    return [
        html.A(
            page.TITLE,
            href=page.PATH,
            **(attributes("aria-current", "page") if page is current else {}),
        )
        for page in PAGES
    ]


def _register_shell(app: Dash, session: Session) -> None:
    @app.callback(
        Output(PAGE, "children"),
        Input(URL, "pathname"),
        Input(REOPEN, "data"),
        State(URL, "search"),
    )
    def show_page(path: str | None, again: str | None, search: str | None) -> Any:
        page = find_page(path)
        if page is None:
            return html.Div(
                [alert(f"no page {str(path)[:80]}"), html.A("To the heads", href="/")],
                className="lost",
            )
        is_again = ctx.triggered_id == REOPEN and isinstance(again, str)
        try:
            return page.layout(session, *_query(again if is_again else search))
        except WorkbenchError as error:
            return html.Div(alert(str(error)), className="lost")

    @app.callback(Output(NAV, "children"), Output(SKIP, "href"), Input(URL, "pathname"))
    def mark_page(path: str | None) -> tuple[list[html.A], str]:
        page = find_page(path)
        return _links(page), "#viewer" if page is attention else "#panels"

    app.clientside_callback(
        ClientsideFunction("workbench", "theme"),
        Output(PROVIDER, "forceColorScheme"),
        Input(THEME, "n_clicks"),
        prevent_initial_call=True,
    )


def _query(search: str | None) -> tuple[dict[str, str], list[str]]:
    """The fields of an address, and what is to be said if they cannot be read."""
    try:
        pairs = parse_qsl(
            (search or "").removeprefix("?"),
            keep_blank_values=True,
            max_num_fields=MAX_QUERY_FIELDS,
        )
    except ValueError:
        return {}, [f"the address has more than {MAX_QUERY_FIELDS} fields: none of them was read"]
    return dict(pairs), []


def _on_error(error: Exception) -> None:
    """One place for every failed callback: say so on the page and leave everything else as it was."""
    log.error("a callback failed", exc_info=error)
    known = isinstance(error, WorkbenchError)
    message = str(error) if known else "internal error: the server's log says more"
    set_props(FAILED, {"children": alert(message)})
    outputs = ctx.outputs_list if isinstance(ctx.outputs_list, list) else [ctx.outputs_list]
    for output in outputs:
        if str(output.get("id", "")).endswith("tick"):
            set_props(output["id"], {"disabled": True})  # or it would fail again and again
