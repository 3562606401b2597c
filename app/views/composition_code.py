"""Python that reproduces each panel of the composition page in a notebook."""

from app.fields import PageState
from app.views.circuit_code import head_code, load_code
from app.views.composition import MAX_EDGES, MAX_ROWS, VALUES, field_of


def _code(state: PageState, *imports: str) -> list[str]:
    """Python of the scores, `found`."""
    options = "".join(
        [
            f", offset={state['offset']}" if state["offset"] else "",
            f", baseline={state['baseline']!r}" if state["baseline"] != "gaussian" else "",
        ]
    )
    needed = {
        "from workbench.composition.scores import composition_scores",
        "from workbench.weights import effective_weights",
        *imports,
    }
    return [
        "import workbench",
        *sorted(needed),
        "",
        f"weights = effective_weights({load_code(state)})",
        f"found = composition_scores(weights{options})",
    ]


def maps_code(state: PageState) -> str:
    """Python of the matrices of heads."""
    lines = _code(state, "from workbench.figures.composition_view import composition_maps")
    unit = VALUES[state["value"]][1]
    lines += [
        "labels = [str(head) for head in found.heads]",
        f"composition_maps(found.{field_of(state)}, labels, title=found.model_name, unit={unit!r})",
    ]
    return "\n".join(lines)


def graph_code(state: PageState) -> str:
    """Python of the head graph."""
    lines = _code(state, "from workbench.figures.composition_view import head_graph")
    lines += [
        *_table_code(state),
        f"edges = table[table['score'] >= {state['threshold']:g} * table['chance']]",
        f"edges = edges.nlargest({MAX_EDGES}, 'excess')",
        "heads = [(head.layer, head.head) for head in found.heads]",
        "head_graph(edges, heads, value='excess', title=found.model_name, unit='score − chance')",
    ]
    return "\n".join(lines)


def pairs_code(state: PageState) -> str:
    """Python of the strongest pairs."""
    lines = [*_code(state), *_table_code(state)]
    return "\n".join([*lines, f"table.nlargest({MAX_ROWS}, {state['value']!r})"])


def pair_code(state: PageState) -> str:
    """Python of one pair's scores."""
    chosen = f"writer == {state['earlier']!r} and reader == {state['head']!r}"
    return "\n".join([*_code(state), f"found.table().query({chosen!r})"])


def _table_code(state: PageState) -> list[str]:
    lines = ["table = found.table()"]
    if state["inputs"] != "all":
        lines.append(f"table = table[table['through'] == {state['inputs']!r}]")
    return lines


def pattern_code(state: PageState) -> str:
    """Python of the pattern."""
    return "\n".join(
        [
            "import workbench",
            "from workbench.figures.composition_view import pattern_map",
            "from workbench.sites import Head",
            "from workbench.composition.virtual import virtual_pattern",
            "",
            f"run = workbench.run({load_code(state)}, {state['prompt']!r})",
            f"pattern = virtual_pattern(run, {head_code(state['head'])}, {head_code(state['earlier'])})",
            "pattern_map(pattern.numpy(), run.str_tokens[0], title='attention')",
        ]
    )
