import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F  # noqa: N812

from fergcn.model import IMAGENET_MEAN, IMAGENET_STD
from fergcn.transforms import (
    augment_clip,
    augment_wild,
    draw_augmentation,
    eval_transform,
    normalize,
)


def still_clip(size: int = 64) -> np.ndarray:
    """Six times the same picture."""
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return np.repeat(image[None], 6, axis=0)


@pytest.mark.parametrize(
    ("side", "resize", "crop"), [(64, 72, 60), (96, 40, 33), (41, 41, 32), (128, 50, 50)]
)
def test_evaluation_prepares_faces_as_torchvision_does(side: int, resize: int, crop: int) -> None:
    faces = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    frames = F.resize(torch.from_numpy(faces).permute(0, 3, 1, 2), [resize] * 2, antialias=True)
    frames = F.to_dtype(F.center_crop(frames, [crop, crop]), torch.float32, scale=True)
    expected = F.normalize(frames, list(IMAGENET_MEAN), list(IMAGENET_STD))
    torch.testing.assert_close(eval_transform(faces, resize, crop), expected, rtol=0, atol=1e-6)


def test_normalising_stays_on_the_device() -> None:
    """`meta` is the one device beside the CPU that every machine has."""
    frames = torch.zeros(2, 3, 4, 4, dtype=torch.uint8, device="meta")
    assert normalize(frames).device.type == "meta"


@pytest.mark.parametrize("epoch", range(8))
def test_all_frames_of_a_clip_get_the_same_draw(epoch: int) -> None:
    frames = augment_clip(still_clip(), draw_augmentation((0, epoch, 3)), resize=40, crop=32)
    assert frames.shape == (6, 3, 32, 32)
    for frame in frames[1:]:
        torch.testing.assert_close(frame, frames[0], rtol=0, atol=0)


def test_light_changes_between_frames_survive() -> None:
    clip = still_clip()
    clip[3:] = clip[3:] // 2
    frames = augment_clip(clip, draw_augmentation((0, 1, 3)), resize=40, crop=32)
    assert frames[0].mean() - frames[5].mean() > 0.5


def test_draws_depend_on_their_key_alone_and_cover_the_range() -> None:
    draws = [draw_augmentation((7, epoch, clip)) for epoch in range(20) for clip in range(20)]
    assert draws[205] == draw_augmentation((7, 10, 5))
    assert len(set(draws)) == len(draws)
    assert 0.4 < np.mean([draw.flip for draw in draws]) < 0.6
    tops = np.array([draw.top for draw in draws])
    assert tops.min() < 0.05 and tops.max() > 0.95
    brightness = np.array([draw.brightness for draw in draws])
    assert 0.8 <= brightness.min() < 0.82 and 1.18 < brightness.max() <= 1.2


def test_flip_mirrors_the_crop() -> None:
    from dataclasses import replace

    draw = replace(draw_augmentation((0, 0, 0)), left=0.5, top=0.5, flip=False)
    clip = still_clip()
    straight = augment_clip(clip, draw, 40, 32)
    mirrored = augment_clip(clip, replace(draw, flip=True), 40, 32)
    torch.testing.assert_close(mirrored, straight.flip(-1))


def test_evaluation_takes_the_centre_and_normalises() -> None:
    faces = np.zeros((1, 40, 40, 3), dtype=np.uint8)
    faces[:, 4:36, 4:36] = [255, 0, 0]  # red, in RGB order
    frames = eval_transform(faces, resize=40, crop=32)
    expected = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    torch.testing.assert_close(frames, expected[None, :, None, None].expand(1, 3, 32, 32))


def test_normalise_takes_bytes_and_floats_alike() -> None:
    frames = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(normalize(frames), normalize(frames.float() / 255))


def test_wild_draws_depend_on_their_key_alone() -> None:
    first = augment_wild(still_clip(), (0, 1, 2), resize=40, crop=32)
    torch.testing.assert_close(first, augment_wild(still_clip(), (0, 1, 2), 40, 32), rtol=0, atol=0)
    assert (first - augment_wild(still_clip(), (0, 1, 3), 40, 32)).abs().mean() > 0.1


def test_wild_changes_all_frames_of_a_clip_alike_but_for_noise() -> None:
    for index in range(12):
        frames = augment_wild(still_clip(), (0, 0, index), resize=40, crop=32)
        assert frames.shape == (6, 3, 32, 32)
        between_frames = (frames[1:] - frames[0]).abs().mean()
        between_pixels = (frames[0, :, 1:] - frames[0, :, :-1]).abs().mean()
        assert between_frames < 0.3
        assert between_frames < between_pixels


def test_wild_covers_what_pictures_from_anywhere_look_like() -> None:
    """Half of them grey, half mirrored, some coarse; every value that of a possible picture."""
    ramp = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    ramp[..., 0] = np.linspace(40, 210, 64)[None, None]  # brighter to the right, red alone
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    grey, mirrored = [], []
    for index in range(200):
        frame = augment_wild(ramp, (0, 0, index), 40, 32)[0]
        pixels = frame * std[:, None, None] + mean[:, None, None]
        assert pixels.min() >= -1e-5 and pixels.max() <= 1 + 1e-5
        grey.append(bool((pixels[0] - pixels[1]).abs().mean() < 0.06))
        mirrored.append(bool(pixels[0, :, :10].mean() > pixels[0, :, -10:].mean()))
    assert 0.35 < np.mean(grey) < 0.65
    assert 0.35 < np.mean(mirrored) < 0.65
