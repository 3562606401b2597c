"""Prompts that fit together: a second one to subtract, and several of one shape to average."""

import re
from statistics import median

from app.state import MAX_PROMPT_CHARS
from workbench.models import ModelInfo

FALLBACK_PROMPT = "the cat sat on the mat and the cat sat on the"
# Changes that are read at once; other prompts take a word from elsewhere in the same prompt.
_SWAPS = {"tired": "wide", "France": "Italy", "cat": "dog", "name": "value"}


def matched_pair(prompt: str) -> str:
    """The same prompt with one word replaced, so that all other tokens have a counterpart.

    The replaced word repeats an earlier one where some does: what follows is then no longer a repeat.
    """
    if len(prompt) > MAX_PROMPT_CHARS:
        return ""
    words = list(re.finditer(r"[A-Za-z]+|\d+", prompt))
    seen: set[str] = set()
    repeats = []
    for word in words:
        repeats += [word] if word[0] in seen else []
        seen.add(word[0])
    for word in words:
        if word[0] in _SWAPS:
            return _replaced(prompt, word, _SWAPS[word[0]])
    for by_length in (True, False):
        for word in [*repeats, *reversed(words)]:
            other = _alike(word[0], words, by_length)
            if other:
                return _replaced(prompt, word, other)
    return prompt


def mean_prompts(info: ModelInfo) -> str:
    """Some prompts, one a line, none much shorter than the others: a mean reaches as far as the shortest."""
    lines = [" ".join(text.split()) for text in examples(info)]
    least = 0.7 * median(len(line) for line in lines)
    lines = [line for line in lines if len(line) >= least]
    if len(lines) == 1 and (pair := matched_pair(lines[0])) != lines[0]:
        lines.append(pair)
    return "\n".join(lines)


def examples(info: ModelInfo) -> tuple[str, ...]:
    """A model's example prompts, at least one."""
    return info.example_prompts or (FALLBACK_PROMPT,)


def first_prompt(info: ModelInfo, kind: str) -> str:
    """What a view shows before anyone has written a prompt."""
    return mean_prompts(info) if kind == "mean" else examples(info)[0]


def _alike(word: str, words: list[re.Match[str]], by_length: bool) -> str:
    def shape(text: str) -> tuple[bool, bool, int]:
        return text.isdigit(), text[0].isupper(), len(text) if by_length else 0

    # A first word is capitalised for its place alone, so it is the last to be taken.
    places = [*words[1:], *words[:1]]
    return next((w[0] for w in places if w[0] != word and shape(w[0]) == shape(word)), "")


def _replaced(prompt: str, word: re.Match[str], other: str) -> str:
    return prompt[: word.start()] + other + prompt[word.end() :]
