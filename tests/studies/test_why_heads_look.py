"""The study of why heads look: its numbers are those kept, its cells and sentences are what they say."""

import numpy as np
import pytest
import torch

from studies.findings import read_findings, read_numbers
from studies.why_heads_look import names, numbers, repeats
from studies.why_heads_look.sentences import HELD_OUT, SELECTION, sentences
from studies.why_heads_look.study import HERE, Config, Findings
from tests.studies.agreement import assert_same_numbers
from workbench.paths.frozen import freeze
from workbench.paths.scores import query_key, score_parts
from workbench.runs import run
from workbench.sites import Head

ONE = sentences(HELD_OUT, 1, Config().seed)[0]


@pytest.fixture(scope="module")
def kept() -> Findings:
    return read_findings(Findings, HERE / "results")


def test_the_readme_quotes_the_kept_numbers(kept):
    assert read_numbers(HERE / "README.md") == numbers.blocks(kept)


def test_every_claim_holds(kept):
    assert kept.holds and all(kept.holds.values()), kept.holds


@pytest.mark.slow
def test_a_fresh_run_finds_the_kept_repeats(attn_2l, kept):
    config, prompts = Config(), "random repeats"
    rows = repeats.rows_of(attn_2l, config.n_rows, config.n_pos, config.seed)[prompts]
    found = repeats.tables_of(attn_2l, prompts, rows, config.n_queries, config.seed)
    # A share of a contrast near zero wobbles with rounding.
    columns = [name for name in found["repeats"] if not name.startswith("share")]
    keys = ["prompts", "head", "cell"]
    assert_same_numbers(found["repeats"][columns], kept.repeats[columns], keys)
    assert_same_numbers(found["pairs"], kept.pairs, ["prompts", "query", "key"])


@pytest.mark.slow
def test_a_fresh_run_finds_the_kept_question(smollm2, kept):
    config = Config()
    leads = kept.removals.loc[kept.removals["straight"].idxmax()]
    wholes, straight = [], []
    for prompt in sentences(HELD_OUT, config.n_held_out, config.seed)[: config.n_removals]:
        frozen = freeze(smollm2, prompt.text)
        at = prompt.places(frozen.str_tokens)
        found = score_parts(frozen, Head.parse(leads["reader"]), -1, at["IO"], versus=at["S1"])
        wholes.append(found.total)
        straight.append(found.side("query").set_index("part")["value"][leads["head"]])
    assert np.mean(wholes) == pytest.approx(leads["contrast"], abs=2e-3)
    assert np.mean(straight) == pytest.approx(leads["straight"], abs=2e-3)


def test_targets_are_repeats_that_go_on_and_keys_elsewhere_are_not(attn_2l):
    rng = np.random.default_rng(3)
    for rows in repeats.rows_of(attn_2l, 2, 64, 5).values():
        for row in rows:
            cells = repeats.cells_of(row, 6, rng)
            targets = [cell for cell in cells if cell.kind == repeats.TARGET]
            assert 0 < len(targets) <= 6 and len(cells) == 2 * len(targets)
            for cell in cells:
                is_behind = row[cell.key - 1] == row[cell.query]
                assert cell.key <= cell.query and is_behind == (cell.kind == repeats.TARGET)
            for cell in targets:
                assert row[cell.key] == row[cell.query + 1]
                assert not (row[cell.key : cell.query - 1] == row[cell.query])[1:].any()


def test_a_head_by_one_pair_and_without_it_are_its_softmax(attn_2l):
    row = repeats.rows_of(attn_2l, 1, 48, 2)["random repeats"][0]
    frozen = freeze(attn_2l, row[None])
    maps = query_key(frozen, repeats.READER)
    cell = repeats.cells_of(row, 1, np.random.default_rng(0))[0]
    found = repeats._facts(maps, score_parts(frozen, maps, *cell[1:], versus="mean"))
    each = [score_parts(frozen, maps, cell.query, key) for key in range(cell.query + 1)]
    place = repeats._place(each[0])
    pair = torch.tensor([float(one.values[place]) for one in each])
    scores = torch.tensor([one.total for one in each])
    assert found["alone"] == pytest.approx(float(pair.softmax(-1)[cell.key]), abs=1e-5)
    assert found["without"] == pytest.approx(float((scores - pair).softmax(-1)[cell.key]), abs=1e-5)
    assert found["attention"] == pytest.approx(float(scores.softmax(-1)[cell.key]), abs=1e-5)


def test_sentences_put_either_name_first_and_share_no_name_or_template():
    found = sentences(HELD_OUT, 32, 0)
    first = [prompt.text.index(prompt.io) < prompt.text.index(prompt.s) for prompt in found]
    assert sum(first) == 16 and len({prompt.text for prompt in found}) == 32
    assert all(
        prompt.text.count(prompt.s) == 2 and prompt.text.count(prompt.io) == 1 for prompt in found
    )
    third = sentences(HELD_OUT, 32, 0, third=True)
    for prompt, other in zip(found, third, strict=True):
        assert (prompt.io, prompt.s) == (other.io, other.s)
        assert other.text.count(other.s) == 1 and other.third in other.text
    assert not set(SELECTION.names) & set(HELD_OUT.names)
    assert not set(SELECTION.templates) & set(HELD_OUT.templates)


def test_names_are_found_where_they_stand(smollm2):
    kept = run(smollm2, ONE.text, sites=())
    tokens, at = kept.str_tokens[0], ONE.places(kept.str_tokens[0])
    assert tokens[at["IO"]] == f" {ONE.io}"
    assert tokens[at["S1"]] == tokens[at["S2"]] == f" {ONE.s}" and at["S1"] < at["S2"]


def test_the_head_that_feeds_the_query_adds_what_its_question_says(smollm2, kept):
    """One sentence anew: the pairs sum to the model's own scores, and the kept head speaks for the name."""
    roles = kept.contrasts.drop_duplicates("role").set_index("role")["head"]
    leads = Head.parse(kept.removals.loc[kept.removals["straight"].idxmax(), "head"])
    chosen = names.Chosen(Head.parse(roles["largest"]), Head.parse(roles["looking"]), leads)
    found = names.taken_apart(smollm2, [ONE], chosen)
    assert [asked for _, asked, _ in found] == list(names.QUESTIONS)
    scores = run(smollm2, ONE.text, sites=["scores"])
    for _, asked, parts in found:
        at = ONE.places(parts.str_tokens)
        own = scores[f"scores.{parts.head.layer}"][0, parts.head.head, -1]
        others = [key for key in range(len(own)) if key != at[asked.key]]
        less = own[others].mean() if asked.versus == "mean" else own[at[asked.versus]]
        assert parts.total == pytest.approx(float(own[at[asked.key]] - less), abs=1e-4)
        assert abs(parts.residual) < 1e-4
    looking = next(parts for _, asked, parts in found if asked == names.QUESTIONS[2])
    assert looking.side("query").set_index("part")["value"][str(leads)] > 0


def test_the_figure_is_drawn_from_the_kept_numbers(kept, tmp_path):
    pytest.importorskip("matplotlib")
    from studies.why_heads_look.figure import draw

    draw(kept, tmp_path / "figure.png")
    assert 20_000 < (tmp_path / "figure.png").stat().st_size < 300_000
