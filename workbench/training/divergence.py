"""When a run is lost though its loss is still a number.

    bound     100 · max(loss of the first weights, loss of answering 0 everywhere)
    diverged  the median of the last 50 losses is beyond the bound, or the weights at the end are

Only the task's own loss on training examples counts: a validation loss may rise a thousandfold while a network
memorises (grokking does), and penalties jump with their schedules. The first loss alone would be no yardstick,
since a network that has been trained before starts near 0, and a penalty may rightly undo that; answering 0
costs what the task is about: ln(tokens) of a cross-entropy, the targets' mean square of a squared error. A
median takes no notice of the single spikes of Adam, and 50 losses let a rough start calm down. A hundredfold,
because a run that begins with too high a rate may come back: the formula of two independent parts does, at a
rate of 3, from a median of thirty times its scale, and at 10 it no longer does.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median_low

N_LOSSES, FACTOR = 50, 100.0


@dataclass
class Bound:
    """How high the training loss of a run may be, and its last losses.

    Args:
        scale: the larger of the first loss and that of answering 0; 0 = not known yet.
    """

    scale: float = 0.0
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=N_LOSSES))

    @property
    def limit(self) -> float:
        """The highest loss that is not beyond; infinite where nothing says what is much."""
        return FACTOR * self.scale if self.scale > 0 else math.inf

    def admits(self, loss: float) -> bool:
        """Whether weights of this loss are worth keeping; those of no number are not."""
        return math.isfinite(loss) and loss <= self.limit

    def add(self, loss: float) -> float | None:
        """Note the loss of a step; the median of the last ones where it is beyond the bound."""
        self.losses.append(loss)
        if len(self.losses) < N_LOSSES:
            return None
        found = median_low(self.losses)
        return found if found > self.limit else None

    def restore(self, scale: float, losses: Iterable[float]) -> None:
        """Take up what was saved with a state."""
        self.scale = scale
        self.losses.clear()
        self.losses.extend(losses)
