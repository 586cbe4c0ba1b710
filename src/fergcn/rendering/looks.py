"""Looks: ways in which some rendered people come closer to photographs than the average head does.

Without any of them a person looks as in the bundled edition.
"""

import numpy as np

LOOKS = (
    "hollows",
    "pale lips",
    "dull eyes",
    "lamps",
    "spots",
    "grim",
    "talking",
    "smiles",
    "teeth",
)
"""Dark brows, sockets and folds; thin, pale lips, with teeth farther behind them; eyes in the shade
of brow and lids; lamps above and flashes; blotchy skin; faces that at rest look grim, tired or
sceptical; neutral faces caught speaking; broad smiles; teeth in brighter light."""

Looks = frozenset[str]

PLAIN: Looks = frozenset()


def sample_looks(seed: int, subject: int) -> Looks:
    """Draw a person's looks, each of `LOOKS` or not."""
    chance = np.random.default_rng([seed, subject, 0, 1]).random(len(LOOKS))
    return frozenset(look for look, drawn in zip(LOOKS, chance, strict=True) if drawn < 0.5)
