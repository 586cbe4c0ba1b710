"""What is compared with what: each row of a table as changes to `ModelConfig`.

Everything that a row does not name is as the command says, the backbone among it.
"""

from typing import Any

TABLE_V: dict[str, dict[str, Any]] = {
    "VGG16": {"num_modules": 0, "fusion": "mean"},
    "VGG16 + graph module × 1": {"num_modules": 1, "fusion": "mean"},
    "VGG16 + graph module × 2": {"num_modules": 2, "fusion": "mean"},
    "VGG16 + graph module × 3": {"num_modules": 3, "fusion": "mean"},
    "VGG16 + graph module × 2 + weighted fusion": {"num_modules": 2, "fusion": "intensity"},
}
"""The paper's ablation, in its order; the last row is FER-GCN."""

OURS: dict[str, dict[str, Any]] = {
    "one A for all modules": {"adjacency": "shared"},
    "an A for each module": {"adjacency": "own"},
    "A fixed to the identity": {"adjacency": "identity"},
    "BiLSTM as Eq. 6": {"temporal": "eq6"},
    "BiLSTM, states side by side": {"temporal": "concat"},
    "no BiLSTM": {"temporal": "none"},
    "fusion by intensity": {"fusion": "intensity"},
    "fusion by the mean": {"fusion": "mean"},
    "the last frame alone": {"fusion": "last"},
    "N = 8": {"num_frames": 8},
    "N = 16": {"num_frames": 16},
    "N = 32": {"num_frames": 32},
}
"""What the paper does not take apart. The first row of each three but the last, and N = 16, are
FER-GCN itself with the default settings: one run serves all four."""

COMPARATORS: dict[str, dict[str, Any]] = {
    "FER-GCN": {"network": "fer-gcn"},
    "frame average": {"network": "frame-average"},
    "CNN-BiLSTM": {"network": "cnn-bilstm"},
    "frame attention": {"network": "frame-attention"},
    "transformer": {"network": "transformer"},
    "R3D-18": {"network": "r3d-18"},
}
"""FER-GCN and what it is compared with (`fergcn.model.comparators`)."""
