"""Features that take on each other's style while a network is trained."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conftest import tiny_config
from fergcn.checkpoint import load_checkpoint
from fergcn.clips import Clip
from fergcn.expressions import FergcnError
from fergcn.model import FERGCN
from fergcn.model.backbones import create_backbone
from fergcn.training.config import TrainConfig
from fergcn.training.loop import train_model
from fergcn.training.styles import mix_styles, mixed_styles


def some_maps() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(8, 3, 5, 4) * torch.rand(8, 3, 1, 1) * 3 + torch.randn(8, 3, 1, 1)


def test_style_is_between_that_of_two_pictures_and_what_they_show_stays() -> None:
    maps = some_maps()
    mean, spread = maps.mean((2, 3)), maps.std((2, 3))
    shown = (maps - mean[..., None, None]) / spread[..., None, None]
    changed = 0
    for seed in range(20):
        torch.manual_seed(seed)
        mixed = mixed_styles(maps, 0.5)
        new_mean, new_spread = mixed.mean((2, 3)), mixed.std((2, 3))
        still_shown = (mixed - new_mean[..., None, None]) / new_spread[..., None, None]
        torch.testing.assert_close(still_shown, shown, rtol=0, atol=1e-3)
        for row in range(len(maps)):
            if torch.allclose(mixed[row], maps[row], atol=1e-5):
                continue
            changed += 1
            # One other picture and one share explain the mean and the spread of all channels.
            fits = []
            for other in range(len(maps)):
                way = torch.cat([mean[other] - mean[row], spread[other] - spread[row]])
                went = torch.cat([new_mean[row] - mean[row], new_spread[row] - spread[row]])
                share = (way @ went) / (way @ way).clamp(min=1e-9)
                fits.append(0 <= share <= 1.001 and bool(((share * way - went).abs() < 2e-3).all()))
            assert any(fits)
    assert 40 < changed < 120  # of 160; some got their own, or next to nothing


def test_never_changes_nothing_and_gradients_do_not_go_through_styles() -> None:
    maps = some_maps()
    torch.testing.assert_close(mixed_styles(maps, 0.0), maps)
    maps.requires_grad_()
    torch.manual_seed(1)
    mixed = mixed_styles(maps, 1.0)
    mixed.sum().backward()
    assert maps.grad is not None
    # With styles that count as constants, every pixel of a map has the same part in the sum.
    assert (maps.grad - maps.grad[:, :, :1, :1]).abs().max() < 1e-6


def test_half_precision_costs_no_more_than_rounding() -> None:
    maps = some_maps() + 20  # means large beside spreads, where terms cancel
    torch.manual_seed(3)
    exact = mixed_styles(maps.bfloat16().float(), 1.0)
    torch.manual_seed(3)
    mixed = mixed_styles(maps.bfloat16(), 1.0)
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed, exact.bfloat16())
    assert mixed_styles(torch.ones(4, 3, 1, 1), 1.0).isfinite().all()


def test_only_training_mixes() -> None:
    torch.manual_seed(0)
    backbone, _ = create_backbone("mobilenetv3_small_050", pretrained=False)
    pictures = torch.randn(4, 3, 64, 64)
    expected = backbone.eval()(pictures)
    names = set(backbone.state_dict())
    mix_styles(backbone, 1.0)
    assert set(backbone.state_dict()) == names
    torch.testing.assert_close(backbone.eval()(pictures), expected)
    backbone.train()
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.Dropout):
            module.eval()  # so that nothing else is random or depends on the batch
    torch.manual_seed(2)
    change = (backbone(pictures) - expected).abs().mean() / expected.abs().mean()
    assert change > 0.01


@pytest.mark.parametrize(
    "name", ["vgg16_bn", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"]
)
def test_a_network_without_such_stages_is_refused(name: str) -> None:
    backbone, _ = create_backbone(name, pretrained=False)
    with pytest.raises(FergcnError, match="found mix_styles with a backbone without stages"):
        mix_styles(backbone, 0.5)


def test_training_takes_it(coloured_clips: list[Clip], tmp_path: Path) -> None:
    fast = TrainConfig(epochs=2, batch_size=4, resize=40, crop=32, accelerator="cpu")
    weights = []
    for run, chance in (("without", 0.0), ("with", 0.5), ("again", 0.5)):
        config = replace(fast, mix_styles=chance)
        checkpoint = train_model(coloured_clips, tmp_path / run, tiny_config(), config)
        model = load_checkpoint(checkpoint).model
        assert isinstance(model, FERGCN)
        weights.append(torch.cat([value.flatten() for value in model.backbone.parameters()]))
    assert not torch.allclose(weights[0], weights[1])
    torch.testing.assert_close(weights[1], weights[2], rtol=0, atol=0)
    with pytest.raises(FergcnError, match="leave --freeze-backbone or --mix-styles out"):
        TrainConfig(mix_styles=0.5, freeze_backbone=True)
    with pytest.raises(FergcnError, match=r"found mix_styles=1\.5, expected 0 to 1"):
        TrainConfig(mix_styles=1.5)
