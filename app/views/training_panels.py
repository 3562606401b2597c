"""What the training page asks of a snapshot: modularity, pruning, one unit, a second run at equal loss."""

from typing import Any

import pandas as pd
from dash import html

from app import training_answers as answers
from app.components import alert
from app.fields import PageState
from app.page import Panel
from app.tables import data_table
from app.training_pairs import Match
from app.views import wiring
from workbench.training.modularity.pruning_curve import PruningCurve
from workbench.training.responses import Responses

PRUNING = "run-pruning-slider"
PAIR = ("run-pair-first", "run-pair-second")
NOTHING: PageState = {
    "run": "", "model": "", "step": None, "stamp": "", "at": None, "other": "", "level": None,
    "threshold": 0.0, "log": "on", "dot": "",
}  # fmt: skip
SHOWN = ("value", "null_mean", "z", "percentile", "unit")
HEADERS = {
    "null_mean": "by chance",
    "z": "z over chance",
    "percentile": "% of chance below",
}


def no_snapshot(state: PageState) -> str:
    """What must be there before a network can be measured."""
    if not state["run"]:
        return "This run is no longer there."
    return "" if state["step"] is not None else "No snapshot yet: the first comes in a moment."


def no_dot(state: PageState) -> str:
    """What must be chosen before a unit can be shown."""
    return no_snapshot(state) or (
        ""
        if state["dot"]
        else "Choose a dot of the picture: click it, or reach it by Tab and the arrow keys."
    )


def no_other(state: PageState) -> str:
    """What must be chosen before two runs can be compared."""
    if missing := no_snapshot(state):
        return missing
    if state["other"] == state["run"]:
        return "This is the same run: choose another one."
    return "" if state["other"] else "Choose a second run above."


def draw_measures(found: answers.Measured, state: PageState) -> list[Any]:
    """The task's numbers in a line, modularity as a table."""
    return [
        html.P(f"Step {state['step']:,}: {_numbers(found)}.", className="statement"),
        data_table(
            _measure_table(found),
            label="Modularity against chance",
            headers=HEADERS,
            formats={"percentile": ".0f", "z": ".1f"},
        ),
    ]


def draw_pruning(found: PruningCurve, state: PageState) -> Any:
    """The slider with its measured losses."""
    return [_at(state), wiring.pruning_panel(found, state["threshold"] or None, PRUNING)]


def draw_unit(found: Responses, state: PageState) -> Any:
    """What a unit responds to."""
    return [_at(state), wiring.responses_panel(found)]


def _at(state: PageState) -> html.Div:
    return html.Div(f"At step {state['step']:,}.", className="hint")


def draw_pair(found: answers.Compared, state: PageState) -> list[Any]:
    """Two runs at equal loss, in words and as a table."""
    pair = found.pair
    said: list[Any] = [
        html.P(
            [
                f"At a validation loss of {pair.level:.4g}: ",
                _matched(found.names[0], pair.first),
                "; ",
                _matched(found.names[1], pair.second),
                f". Both can be compared from {pair.lowest:.4g} to {pair.highest:.4g}.",
            ],
            className="statement",
            id="run-pair-level",
        )
    ]
    if found.tasks[0] != found.tasks[1]:
        said.append(
            alert(
                f"These learn different tasks ({' and '.join(found.tasks)}): their losses mean different "
                f"things"
            )
        )
    far = abs(pair.first.loss - pair.second.loss)
    if far > 0.25 * max(pair.first.loss, pair.second.loss):
        said.append(
            html.Div(
                "The nearest snapshots are more than a quarter apart in loss: keep more snapshots for a "
                "closer match.",
                className="hint",
            )
        )
    table = data_table(_pair_table(found), label="Both runs at equal loss", headers=HEADERS)
    return [*said, _pictures(found), table]


def _pictures(found: answers.Compared) -> html.Div:
    """Both networks, drawn to one scale."""
    ends = list(zip(found.names, (found.pair.first, found.pair.second), strict=True))
    cells = []
    for id, (name, match), (other, other_match) in zip(PAIR, ends, ends[::-1], strict=True):
        said = f"{name}, step {match.step:,}, loss {match.loss:.4g}"
        source = f"/api/runs/{name}/wiring/{match.step}/beside/{other}/{other_match.step}"
        picture = wiring.wiring_panel({"src": source}, id, label=f"Wiring of {said}")
        cells.append(html.Div([html.H3(said), picture]))
    return html.Div(cells, className="run-pair-pictures")


def _matched(name: str, match: Match) -> str:
    return f"{name} at step {match.step:,} (loss {match.loss:.4g})"


def _numbers(found: answers.Measured) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {value:.4g}" for name, value in found.numbers.items()
    )


def _measure_table(found: answers.Measured) -> pd.DataFrame:
    table = found.table()
    return table[["measure", *SHOWN]]


def _pair_table(found: answers.Compared) -> pd.DataFrame:
    first, second = (_measure_table(each).set_index("measure") for each in found.measured)
    here = [measure for measure in first.index if measure in second.index]
    rows = [
        {
            "measure": measure,
            found.names[0]: first.at[measure, "value"],
            f"{found.names[0]}, z": first.at[measure, "z"],
            found.names[1]: second.at[measure, "value"],
            f"{found.names[1]}, z": second.at[measure, "z"],
            "unit": first.at[measure, "unit"],
        }
        for measure in here
    ]
    return pd.DataFrame(rows)


def _code(*imports: str, body: list[str]) -> Any:
    def code(state: PageState) -> str:
        lines = [
            "from pathlib import Path",
            "from workbench.training.plan import make_run",
            "from workbench.training.run_folder import RunFolder",
            *imports,
            "",
            f"run = RunFolder(Path({str(state['run'])!r}))  # in the folder of runs",
            f"network, made = run.load({state['step']!r}), make_run(run.plan, run.path)",
        ]
        return "\n".join([*lines, *(line.format(**state) for line in body)])

    return code


PANELS = (
    Panel(
        name="run-modularity",
        title="Modularity",
        explains="Newman's Q, wiring and cuts of this snapshot, each against the same network with its "
        "weights shuffled inside every matrix; of what pruning leaves, against as many wires at the same "
        "units, put elsewhere. After an L1 penalty only the latter says something: shuffles of a nearly "
        "sparse network fall into pieces, and look modular for that. Large networks are not pruned here.",
        uses=("stamp",),
        compute=answers.measured,  # type: ignore[arg-type]  # what is asked of is a Trained, not a Model
        draw=draw_measures,
        needs=no_snapshot,
        code=_code(
            "from workbench.training.measuring import measured, subject_of",
            body=[
                "subject = subject_of(network, run.plan.task, made.task, made.layout)",
                f"measured(subject, shuffles={answers.N_SHUFFLES}).table()  # a large one takes long",
            ],
        ),
    ),
    Panel(
        name="run-pair",
        title="Two runs at equal loss",
        explains="A network that learned less is easily more modular. So of each run that snapshot is "
        "taken whose validation loss is nearest to one common value.",
        uses=("other", "level", "stamp"),
        compute=answers.compared,  # type: ignore[arg-type]
        draw=draw_pair,
        needs=no_other,
        code=_code(
            "from app.training_pairs import equal_loss",
            body=[
                "other = RunFolder(Path({other!r}))",
                "tables = [(each.metrics(), each.snapshots()) for each in (run, other)]",
                "equal_loss(*tables, level={level!r})",
            ],
        ),
    ),
)
PRUNING_PANEL = Panel(
    name="run-pruning",
    title="Pruning",
    explains="Wires below the threshold are cut and the task is measured again; nothing is retrained. The "
    "picture shows what is left.",
    uses=("stamp",),
    compute=answers.pruned,  # type: ignore[arg-type]
    draw=draw_pruning,
    needs=no_snapshot,
    code=_code(
        "from workbench.training.modularity.pruning_curve import pruning_curve, task_loss",
        body=["pruning_curve(network, task_loss(network, made.task)).table()"],
    ),
)
UNIT_PANEL = Panel(
    name="run-unit",
    title="The chosen unit",
    explains="Its strongest wires, and what it responds to on examples of the task.",
    uses=("dot", "stamp"),
    compute=answers.unit,  # type: ignore[arg-type]
    draw=draw_unit,
    needs=no_dot,
    code=_code(
        "from workbench.training.responses import responses",
        body=[
            "group, _, index = {dot!r}.rpartition('/')",
            "responses(network, made.task, group, int(index)).table()",
        ],
    ),
)
ALL = (PRUNING_PANEL, UNIT_PANEL, *PANELS)
