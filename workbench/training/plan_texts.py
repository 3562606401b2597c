"""What a plan says as text: strengths that jump, and the decay of single parameters.

    points("0:0.001, 0.25:0.01")                  share of the steps → λ from there on
    rates("*.b: 0, layers.*.W: 0.1 length")       pattern of names → rate; times each wire's length

Read without torch, so that a form can check them.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

from workbench.training.plan_fields import PlanError

MAX_PARTS = 64
LENGTH = "length"


@dataclass(frozen=True)
class Rate:
    """How fast a parameter decays.

    Args:
        by_length: each number's rate is this times the length of its wire, in mean lengths.
    """

    amount: float
    by_length: bool = False


def points(text: str, field: str, highest: float) -> tuple[tuple[float, float], ...]:
    """Shares of the steps that rise from 0 to below 1, and what holds from each of them on.

    Raises:
        PlanError: names the field, and the part that cannot be meant.
    """
    found = []
    for share, strength in _pairs(text, field, "0:0.001, 0.25:0.01"):
        found.append((_number(share, field, 1.0), _number(strength, field, highest)))
    shares = [share for share, _ in found]
    if shares[0] != 0 or shares[-1] >= 1 or any(b <= a for a, b in pairwise(shares)):
        listed = ", ".join(f"{share:g}" for share in shares)
        raise PlanError(field, f"must be of shares that rise from 0 to below 1, not {listed:.60}")
    return tuple(found)


def rates(text: str, field: str, highest: float) -> dict[str, Rate]:
    """Patterns of parameters' names and the rate of each; the first that fits counts.

    Raises:
        PlanError: names the field, and the part that cannot be meant.
    """
    found: dict[str, Rate] = {}
    for pattern, rate in _pairs(text, field, "*.b: 0, layers.*.W: 0.1 length"):
        if pattern in found:
            raise PlanError(field, f"must name {pattern[:40]!r} once only")
        by_length = rate.endswith(f" {LENGTH}")
        found[pattern] = Rate(_number(rate.removesuffix(LENGTH), field, highest), by_length)
    return found


def _pairs(text: str, field: str, example: str) -> list[tuple[str, str]]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > MAX_PARTS:
        raise PlanError(field, f"must be at most {MAX_PARTS} parts, not {len(parts)}")
    found = []
    for part in parts:
        left, colon, right = (word.strip() for word in part.partition(":"))
        if not (left and colon and right):
            raise PlanError(field, f"must be as {example!r}: {part[:40]!r} is not")
        found.append((left, right))
    return found


def _number(text: str, field: str, highest: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    # Comparisons with NaN are false.
    if not 0 <= value <= highest:
        raise PlanError(
            field, f"must be of numbers from 0 to {highest:g}: {text.strip()[:40]!r} is none"
        )
    return value
