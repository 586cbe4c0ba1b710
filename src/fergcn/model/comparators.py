"""What FER-GCN is compared with, under the same folds, frames and schedule.

The heads take the frame features of the same backbone and projection; each ends in one linear
classifier and has no dropout, as FER-GCN has none. `VideoCNN` takes the frames themselves.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fergcn.model.backbones import missing_weights
from fergcn.model.config import ModelConfig
from fergcn.model.graph import ConcatBiLSTM


class BiLSTMHead(nn.Module):
    """The common CNN-RNN: one BiLSTM over the frames, the mean of its states, linear classifier.

    The mean, not the last states, because it favours no place of the apex in the clip.

    Args:
        config: the network's configuration; either direction has d/2 states.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.temporal = ConcatBiLSTM(config.feature_dim)
        self.classifier = nn.Linear(config.feature_dim, config.num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Map `(B, N, d)` to `(B, num_classes)` logits, for any N."""
        logits: Tensor = self.classifier(self.temporal(features).mean(dim=1))
        return logits


class FrameAttentionHead(nn.Module):
    """Frame attention network (Meng, Peng, Wang and Qiao, ICIP 2019).

    Self-attention `α_i = σ(f_i·q0)` gives the clip's first vector `f'_v = Σ α_i f_i / Σ α_i`;
    relation-attention `β_i = σ([f_i : f'_v]·q1)` then gives what is classified,
    `f_v = Σ α_i β_i [f_i : f'_v] / Σ α_i β_i`.

    Args:
        config: the network's configuration.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.q0 = nn.Linear(config.feature_dim, 1, bias=False)
        self.q1 = nn.Linear(2 * config.feature_dim, 1, bias=False)
        self.classifier = nn.Linear(2 * config.feature_dim, config.num_classes)

    def fusion_weights(self, features: Tensor) -> Tensor:
        """Weight of each frame, `α_i β_i / Σ α_i β_i`: `(B, N, d)` to `(B, N)`."""
        return self._relate(features)[1].squeeze(-1)

    def forward(self, features: Tensor) -> Tensor:
        """Map `(B, N, d)` to `(B, num_classes)` logits, for any N."""
        related, weights = self._relate(features)
        logits: Tensor = self.classifier((weights * related).sum(dim=1))  # (B, 2d)
        return logits

    def _relate(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """What is fused, `(B, N, 2d)`, and its weights, `(B, N, 1)`."""
        # softmax(log α) is α / Σ α, and no division by zero where every α vanishes.
        log_alpha = F.logsigmoid(self.q0(features))  # (B, N, 1)
        first = (torch.softmax(log_alpha, dim=1) * features).sum(dim=1, keepdim=True)  # (B, 1, d)
        related = torch.cat([features, first.expand_as(features)], dim=-1)  # (B, N, 2d)
        log_beta = F.logsigmoid(self.q1(related))
        return related, torch.softmax(log_alpha + log_beta, dim=1)


class TransformerHead(nn.Module):
    """Transformer encoder over the frames, as the temporal part of Former-DFER (Zhao and Liu 2021).

    Two layers with four attention heads and 4d hidden units, layer norm first, GELU; learned
    positions are added to the frames, a learned class token is put before them and classified.

    Args:
        config: the network's configuration.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.feature_dim
        self.token = nn.Parameter(0.02 * torch.randn(width))
        self.positions = nn.Parameter(0.02 * torch.randn(config.num_frames, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(
            layer, 2, norm=nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.classifier = nn.Linear(width, config.num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Classify clips from their frame features.

        Args:
            features: `(B, N, d)`.

        Returns:
            `(B, num_classes)` logits.

        Raises:
            ValueError: the clips have another number of frames than there are positions.
        """
        self.config.require_num_frames(features.shape[1])
        token = self.token.expand(features.shape[0], 1, -1)  # (d) → (B, 1, d)
        encoded = self.encoder(torch.cat([token, features + self.positions], dim=1))  # (B, 1+N, d)
        logits: Tensor = self.classifier(encoded[:, 0])
        return logits


class VideoCNN(nn.Module):
    """R3D-18, a ResNet of 3D convolutions (Tran et al. 2018), with a new last layer.

    It has no features of single frames, so that nothing of it can be frozen or shared by windows.
    Frames are normalised as for all networks here, with ImageNet's mean and spread; the Kinetics
    weights were trained with slightly others (mean .43 .39 .38, spread .23 .22 .22).

    Args:
        config: the network's configuration.

    Raises:
        OSError: the Kinetics weights can't be had.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        from torchvision.models.video import R3D_18_Weights, r3d_18

        self.config = config
        weights = R3D_18_Weights.KINETICS400_V1 if config.pretrained else None
        try:
            self.cnn = r3d_18(weights=weights)
        except (OSError, RuntimeError) as error:
            if not config.pretrained:
                raise
            raise missing_weights("Kinetics weights of r3d-18", error) from error
        self.cnn.fc = nn.Linear(self.cnn.fc.in_features, config.num_classes)

    def forward(self, frames: Tensor) -> Tensor:
        """Classify clips.

        Args:
            frames: `(B, N, 3, H, W)`, RGB, normalised as `fergcn.transforms.normalize` does; any N.

        Returns:
            `(B, num_classes)` logits.
        """
        logits: Tensor = self.cnn(frames.transpose(1, 2))  # (B, N, 3, …) → (B, 3, N, …)
        return logits
