"""Pairs of least cost."""

import numpy as np
from numpy.typing import NDArray


def assign(cost: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pair rows with columns so that the costs of the pairs add up to the least.

    Args:
        cost: `(rows, columns)`, finite.

    Returns:
        `min(rows, columns)` pairs of a row and a column, by row.
    """
    if min(cost.shape) <= 1:  # one face is the usual case; importing SciPy takes half a second
        return [divmod(int(cost.argmin()), cost.shape[1])] if cost.size else []
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(cost)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))
