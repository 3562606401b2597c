"""What `orders` and `lesions` print: orders with bars and what they cancel, lesions with both numbers."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from rich.table import Table

from workbench.paths.lesions import Lesions
from workbench.paths.orders import OrderSpectrum

BAR = 16  # cells on each side of zero
SHARE = 1e-4  # of the largest order: smaller ones at the end are one row


def order_lines(found: OrderSpectrum) -> Iterator[str]:
    """What was asked, how far the sum is from it, and how much cancels."""
    yield f"{found.label} in {found.model_name}: {found.total:.4f}"
    yield f"the orders and the bias ({found.bias:.4f}) sum to it within {abs(found.residual):.1e}"
    sizes = float(np.abs(found.orders).sum())
    yield (
        f"their sizes sum to {sizes:.4g}, {found.cancellation:.4g} times the size of their sum: "
        + ("they mostly cancel" if found.cancellation > 2 else "little cancels")
    )


def order_table(found: OrderSpectrum) -> Table:
    """One row per order: its value, the sum up to it, and a bar; a tail of tiny ones is one row."""
    orders = found.orders
    largest = float(np.abs(orders).max()) or 1.0
    noted = np.flatnonzero(np.abs(orders) > SHARE * largest)
    stop = int(noted[-1]) + 1 if len(noted) else 1
    rows = [(str(order), float(orders[order])) for order in range(stop)]
    if stop < len(orders):
        rows.append((f"{stop} to {len(orders) - 1}", float(orders[stop:].sum())))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("order", found.unit, "sum with bias"):
        table.add_column(heading, justify="right")
    table.add_column("", no_wrap=True)
    reached = found.bias
    for label, value in rows:
        reached += value
        table.add_row(label, f"{value:.4g}", f"{reached:.4g}", _bar(value / largest))
    return table


def _bar(share: float) -> str:
    cells = "█" * round(abs(share) * BAR)
    return f"{cells if share < 0 else '':>{BAR}}│{cells if share > 0 else ''}"


def lesion_lines(found: Lesions) -> Iterator[str]:
    """What is measured, and how well the frozen network foretells lesions of the true one."""
    yield (
        f"{found.model_name}: {found.intact.mean():.4f} {found.unit}; the frozen network says so within "
        f"{found.residual:.1e}"
    )
    table = found.table()
    if len(table) > 2 and table["true"].std() > 0 and table["frozen"].std() > 0:
        rank = table["true"].corr(table["frozen"], method="spearman")
        yield f"what frozen and true lesions change correlates at {rank:.2f} (ranks, {len(table)} parts)"


def lesion_rows(found: Lesions, top: int) -> pd.DataFrame:
    """The lesions that change most: truly, as the frozen network says, and the difference."""
    table = found.table()
    order = table["true"].abs().sort_values(ascending=False, kind="stable").index
    table = table.loc[order].head(top)
    return pd.DataFrame(
        {
            "without": table["lesion"],
            "true": table["true"],
            "frozen": table["frozen"],
            "true - frozen": table["true"] - table["frozen"],
            "unit": table["unit"],
        }
    )
