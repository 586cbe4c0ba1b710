from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fergcn import EXPRESSIONS, FergcnError
from fergcn.clips import Clip, load_clip, read_clip, sample_frames
from fergcn.expressions import sort_expressions


@given(available=st.integers(1, 5000), wanted=st.integers(1, 64))
def test_sampled_frames_are_chronological_and_spread_evenly(available: int, wanted: int) -> None:
    chosen = sample_frames(available, wanted)
    assert len(chosen) == wanted
    assert chosen.min() >= 0 and chosen.max() < available
    steps = np.diff(chosen)
    assert (steps >= 0).all()
    if wanted > 1:
        assert chosen[0] == 0 and chosen[-1] == available - 1
        # At most half a frame from the ideal place, in whole numbers: floats blur an exact half.
        ideal_scaled = np.arange(wanted) * (available - 1)
        assert (2 * np.abs(chosen * (wanted - 1) - ideal_scaled)).max() <= wanted - 1
        assert steps.max() - steps.min() <= 1
    if available <= wanted and wanted > 1:
        assert set(chosen) == set(range(available))


def test_as_many_frames_as_wanted_are_taken_as_they_are() -> None:
    assert sample_frames(16, 16).tolist() == list(range(16))


@pytest.mark.parametrize(("available", "wanted"), [(0, 16), (16, 0), (-1, 4)])
def test_nothing_to_sample_is_an_error(available: int, wanted: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        sample_frames(available, wanted)


def test_a_clip_loads_its_first_and_last_frame(coloured_clips: list[Clip]) -> None:
    clip = next(clip for clip in coloured_clips if clip.expression == "happiness")
    faces = load_clip(clip, 4)
    assert faces.shape == (4, 48, 48, 3)
    assert faces.dtype == np.uint8
    green = faces[:, 20:28, 20:28, 1].mean((1, 2))
    assert green[0] < 125 < 190 < green[-1]
    assert (np.diff(green) > 0).all()


def test_one_frame_alone_is_the_apex_where_it_is_known(coloured_clips: list[Clip]) -> None:
    clip = replace(coloured_clips[0], apex_index=None)
    count = sum(1 for _ in read_clip(clip))
    whole = load_clip(clip, count)
    assert np.array_equal(load_clip(clip, 1)[0], whole[(count - 1) // 2])
    assert np.array_equal(load_clip(replace(clip, apex_index=count - 1), 1)[0], whole[-1])
    assert np.array_equal(load_clip(replace(clip, apex_index=count - 1), 2), whole[[0, -1]])


def test_expressions_keep_their_order() -> None:
    assert sort_expressions({"neutral", "fear", "anger"}) == ("anger", "fear", "neutral")
    order = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
    assert order == EXPRESSIONS
    assert sort_expressions({"neutral", "calm", "awe"}) == ("neutral", "awe", "calm")
    with pytest.raises(FergcnError, match="found the expression 'Joy', expected a lower-case"):
        sort_expressions({"Joy"})
