"""Python that reproduces each panel of the circuits page in a notebook."""

from app.fields import PageState
from workbench.sites import Head


def load_code(state: PageState) -> str:
    """The call that loads the model of a state."""
    step = "" if state["step"] is None else f", step={state['step']}"
    return f"workbench.load({state['model']!r}{step})"


def head_code(label: str) -> str:
    """A head as Python: `Head(1, 4)`."""
    head = Head.parse(label)
    return f"Head({head.layer}, {head.head})"


def _weights(state: PageState, model: str = "model") -> str:
    own = "" if state["embedding"] == "raw" else ", normalise_tokens=True"
    return f"effective_weights({model}{own})"


def _start(state: PageState, *imports: str) -> list[str]:
    """Imports, model and weights; `head` is the chosen head's weights."""
    known = {
        "import workbench": None,
        "from workbench.sites import Head": None,
        "from workbench.weights import effective_weights": None,
    }
    known |= dict.fromkeys(imports)
    if state["earlier"]:
        known["from workbench.composition.virtual import virtual_head"] = None
    lines = [
        *sorted(known),
        "",
        f"model = {load_code(state)}",
        "weights = effective_weights(model)",
    ]
    chosen = head_code(state["head"])
    if not state["earlier"]:
        return [*lines, f"head = weights.head({chosen})"]
    earlier = head_code(state["earlier"])
    call = f"virtual_head(weights, {chosen}, {earlier}, through={state['through']!r})"
    return [*lines, f"head = {call}"]


def _circuit(state: PageState, *imports: str) -> list[str]:
    """The same, and `circuit`."""
    if state["circuit"] == "OV":
        needed, call = "ov_circuit", "ov_circuit(weights, head)"
    else:
        needed, call = "qk_circuit", "qk_circuit(weights, head)"
        if state["offset"]:
            call = f"qk_circuit(weights, head, offset={state['offset']})"
    start = _start(state, f"from workbench.circuits.full import {needed}", *imports)
    return [*start, f"circuit = {call}"]


def eigenvalues(state: PageState) -> str:
    """The eigenvalues, their score and their picture."""
    lines = _circuit(
        state,
        "from workbench.circuits.copying import eigen_cloud",
        "from workbench.figures.circuit_view import eigenvalue_plane",
    )
    lines += [
        "cloud = eigen_cloud(circuit, weights, n_null=100)",
        "print(cloud.score, cloud.null_scores.mean(), cloud.null_scores.std(ddof=1))",
        "eigenvalue_plane(",
        "    cloud.values.numpy(), cloud.null.numpy(), title=circuit.label, unit=circuit.unit",
        ")",
    ]
    return "\n".join(lines)


def copying(state: PageState) -> str:
    """The score of every head."""
    return "\n".join(
        [
            "import workbench",
            "from workbench.circuits.copying import copying_scores",
            "from workbench.weights import effective_weights",
            "",
            f"weights = {_weights(state, load_code(state))}",
            f"scores = copying_scores(weights, kind={state['circuit']!r}, n_null=100, n_tokens=0)",
            "scores.table()",
        ]
    )


def geometry(state: PageState) -> str:
    """The geometry of every head."""
    offset = f"offset={state['offset']}, " if state["offset"] else ""
    return "\n".join(
        [
            "import workbench",
            "from workbench.circuits.geometry import qk_geometry",
            "from workbench.weights import effective_weights",
            "",
            f"weights = effective_weights({load_code(state)})",
            f"qk_geometry(weights, {offset}n_null=100).table()",
        ]
    )


def offsets(state: PageState) -> str:
    """The scores at each distance."""
    lines = _start(state, "from workbench.circuits.positions import score_by_offset")
    return "\n".join([*lines, "score_by_offset(weights, head).table()"])


def entries(state: PageState) -> str:
    """The extreme entries."""
    lines = _circuit(state, "from workbench.vocabulary import token_texts")
    lines += [
        f"table = circuit.top({state['k']}, by={state['by']!r}).table()",
        "table[circuit.row_axis] = token_texts(model, table['row'].tolist())",
        "table[circuit.column_axis] = token_texts(model, table['column'].tolist())",
        "table",
    ]
    return "\n".join(lines)


def _token(text: str) -> str:
    """The id that a text means, as Python."""
    is_id = text.startswith("#") and text[1:].isdecimal()
    return text[1:10] if is_id else f"find_tokens(model.tokenizer, {text!r})[0]"


def line(state: PageState) -> str:
    """A token's row or column."""
    needed = ["import pandas as pd", "from workbench.vocabulary import token_texts"]
    find = f"token = int(model.to_tokens({state['prompt']!r})[0, -1])"
    if state["token"]:
        needed.append("from workbench.trigrams.named_tokens import find_tokens")
        find = f"token = {_token(state['token'])}"
    lines = _circuit(state, *needed)
    lines += [
        find,
        f"values = circuit.{state['side']}(token)",
        "ids = values.argsort(descending=True)[:40].tolist()",
        "pd.DataFrame({'token': token_texts(model, ids), 'value': values[ids].tolist()})",
    ]
    return "\n".join(lines)


def block(state: PageState) -> str:
    """The entries between the tokens of a text."""
    lines = _circuit(
        state,
        "from workbench.figures.circuit_view import entries_map",
        "from workbench.vocabulary import token_texts",
    )
    lines += [
        f"ids = list(dict.fromkeys(model.to_tokens({state['prompt']!r})[0].tolist()))[:40]",
        "values, tokens = circuit.block(ids, ids).numpy(), token_texts(model, ids)",
        "axes = (circuit.row_axis, circuit.column_axis)",
        "entries_map(values, tokens, tokens, axes=axes, title=circuit.label, unit=circuit.unit)",
    ]
    return "\n".join(lines)


def directions(state: PageState) -> str:
    """The singular directions."""
    lines = _circuit(state)
    return "\n".join([*lines, "circuit.singular(min(12, circuit.rank)).table(model, top=8)"])


def trigrams(state: PageState) -> str:
    """The ranked skip-trigrams and what they imply."""
    lines = _trigrams(
        state, "import pandas as pd", "from workbench.trigrams.listing import bugs, skip_trigrams"
    )
    return "\n".join([*lines, "pd.concat([found.table(), bugs(found).table()], ignore_index=True)"])


def counted(state: PageState) -> str:
    """The same, counted in held-out text."""
    lines = _trigrams(
        state,
        "from workbench.trigrams.listing import skip_trigrams",
        "from workbench.trigrams.counts import occurrences",
    )
    n_measured = 0 if state["earlier"] else 8
    return "\n".join([*lines, f"occurrences(model, found, n_measured={n_measured}).table()"])


def _trigrams(state: PageState, *imports: str) -> list[str]:
    places = [place for place in ("source", "destination", "out") if state[place]]
    needed = ["from workbench.trigrams.named_tokens import find_tokens"] if places else []
    lines = _start(state, *imports, *needed)
    options = "".join(f", {place}={_token(state[place])}" for place in places)
    offset = f", offset={state['offset']}" if state["offset"] else ""
    return [*lines, f"found = skip_trigrams(weights, head, k=60{offset}{options})"]
