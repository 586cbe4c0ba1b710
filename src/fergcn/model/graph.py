"""Graph convolution over frames, temporal layer, intensity weights (Eq. 1–7); ours: per clip."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class GraphConvolution(nn.Module):
    """Every frame updates itself from all frames: `LeakyReLU(A H W)` (Eq. 1–4).

    Eq. 1–3 split row i of A into the node's own entry and its neighbours'; adding both parts in
    Eq. 4 gives row i of the product A H W again, so the layer is two matrix products.

    Args:
        in_features: size of a frame's feature vector.
        out_features: size of the updated feature vector.
        negative_slope: of the LeakyReLU; the paper takes 0.2.
    """

    def __init__(self, in_features: int, out_features: int, negative_slope: float = 0.2) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        # Keeps the variance of the features through the layer while A is the identity.
        gain = nn.init.calculate_gain("leaky_relu", negative_slope)
        nn.init.normal_(self.weight, std=gain / math.sqrt(in_features))

    def forward(self, features: Tensor, adjacency: Tensor) -> Tensor:
        """Propagate features between the frames.

        Args:
            features: `(B, N, in_features)`, one row a frame.
            adjacency: `(N, N)` for all clips, or `(B, N, N)`; entry i, j says how much frame i
                depends on frame j.

        Returns:
            `(B, N, out_features)`.
        """
        messages = features @ self.weight  # (B, N, in) → (B, N, out)
        return F.leaky_relu(adjacency @ messages, self.negative_slope)


class BiLSTMFusion(nn.Module):
    """BiLSTM whose two states meet the input once more (Eq. 6).

    `H_i = tanh(V_f σ(U_f [s_f,i ; o_i]) + V_b σ(U_b [s_b,i ; o_i]) + b)`, where s_f,i is the state
    of a forward LSTM that has read frames 1…i and s_b,i of a backward LSTM that has read N…i.

    Args:
        features: d, size of a frame's feature vector and of either LSTM state. U has d/2 rows.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, features, batch_first=True, bidirectional=True)
        half = features // 2
        self.u_forward = nn.Linear(2 * features, half, bias=False)
        self.u_backward = nn.Linear(2 * features, half, bias=False)
        self.v_forward = nn.Linear(half, features, bias=False)
        self.v_backward = nn.Linear(half, features, bias=False)
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, outputs: Tensor) -> Tensor:
        """Model the variation over time.

        Args:
            outputs: `(B, N, d)`, what the graph convolution returned.

        Returns:
            `(B, N, d)`, each value between -1 and 1.
        """
        states, _ = self.lstm(outputs)  # (B, N, 2d): forward half, backward half
        s_forward, s_backward = states.chunk(2, dim=-1)
        forward = self.v_forward(torch.sigmoid(self.u_forward(torch.cat([s_forward, outputs], -1))))
        backward = self.v_backward(
            torch.sigmoid(self.u_backward(torch.cat([s_backward, outputs], -1)))
        )
        return torch.tanh(forward + backward + self.bias)


class ConcatBiLSTM(nn.Module):
    """The common BiLSTM: two states of d/2 each, side by side.

    Args:
        features: d, size of a frame's feature vector; must be even.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, features // 2, batch_first=True, bidirectional=True)

    def forward(self, outputs: Tensor) -> Tensor:
        """Map `(B, N, d)` to `(B, N, d)`."""
        states: Tensor = self.lstm(outputs)[0]
        return states


TEMPORAL_LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "eq6": BiLSTMFusion,
    "concat": ConcatBiLSTM,
    "none": lambda _: nn.Identity(),
}
"""What follows each graph convolution, by the name in `ModelConfig.temporal`."""


class GraphModule(nn.Module):
    """One graph-based module: graph convolution, then the temporal layer (Section III.A).

    Args:
        features: d, size of a frame's feature vector.
        temporal: a key of `TEMPORAL_LAYERS`.
        negative_slope: of the LeakyReLU.
    """

    def __init__(self, features: int, temporal: str = "eq6", negative_slope: float = 0.2) -> None:
        super().__init__()
        self.graph = GraphConvolution(features, features, negative_slope)
        self.temporal = TEMPORAL_LAYERS[temporal](features)

    def forward(self, features: Tensor, adjacency: Tensor) -> Tensor:
        """Map `(B, N, d)` and `(N, N)` or `(B, N, N)` to `(B, N, d)`."""
        updated: Tensor = self.temporal(self.graph(features, adjacency))
        return updated


def resample_adjacency(adjacency: Tensor, num_frames: int) -> Tensor:
    """Bring A to another number of frames.

    A's entries are averaged over the stretches of time that the new frames stand for; what a frame
    takes from all frames together stays, on average, the same.

    Args:
        adjacency: `(N, N)`.
        num_frames: n.

    Returns:
        `(n, n)`; for n = N, A itself.
    """
    before = adjacency.shape[0]
    if num_frames == before:
        return adjacency
    new = torch.arange(num_frames).to(adjacency)[:, None]
    old = torch.arange(before).to(adjacency)
    span = before / (new[-1] + 1)  # frames of A that a new one stands for; a tensor, for ONNX
    overlap = torch.minimum((new + 1) * span, old + 1) - torch.maximum(new * span, old)
    mean = overlap.clamp(min=0) / span  # (n, N)
    resampled: Tensor = mean @ adjacency @ mean.T * span
    return resampled


def intensity_weights(adjacency: Tensor) -> Tensor:
    """Expression intensity weights `softmax(mean(A, dim=0))` (Eq. 7).

    Column j of A holds the influence of frame j on all frames. No gradient reaches A from here:
    the paper freezes it in this branch only.

    Args:
        adjacency: `(N, N)`.

    Returns:
        `(N,)` weights that add up to 1.
    """
    return torch.softmax(adjacency.detach().mean(dim=0), dim=0)
