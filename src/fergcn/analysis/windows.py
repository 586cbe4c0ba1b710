"""Which frames of a face form the windows that the network answers, as the frames come."""

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fergcn.analysis.segments import ROUNDING_S
from fergcn.clips import sample_frames

MAX_WINDOW_FRAMES = 2000
"""Frames that a window spans at most, whatever their times say; bounds memory."""


@dataclass(frozen=True, eq=False)
class Window:
    """Frames of one face, counted from 0 since the face came."""

    start: int
    """The first frame that the window spans."""
    stop: int
    """One more than the last one."""
    chosen: NDArray[np.int64]
    """`(N,)` the spanned frames that the network sees, never decreasing."""


class WindowPlanner:
    """Lay windows over the frames of a face that is there without a longer gap.

    A window spans the `window_s` up to the frame that it ends with. The first one ends as soon as
    it is that long, the others a stride later each, and the last one with the last frame; one that
    would otherwise leave a frame out ends earlier. So every frame is in a window, and a face that
    is there for a shorter time has one window of all its frames.

    Args:
        num_frames: N.
        window_s: time that a window spans, in seconds.
        stride_s: time from one window's end to the next one's, in seconds.
        stride: the same in frames; None takes `stride_s`.
    """

    def __init__(
        self, num_frames: int, window_s: float, stride_s: float, stride: int | None = None
    ) -> None:
        self.num_frames = num_frames
        self.window_s = window_s
        self.stride_s = stride_s
        self.stride = stride
        self.first = 0
        """The first frame that a later window can reach; all before it are done with."""
        self._times: list[float] = []  # of the frames from `first` on
        self._next_due: float | None = None
        self._last_end = -1

    def add(self, time_s: float) -> list[Window]:
        """Take in the next frame.

        Args:
            time_s: not before the previous one's.

        Returns:
            The windows that can be answered now: at most one that ends with the frame before, and
            one that ends with this frame.
        """
        windows = []
        leaving = bisect_left(self._times, time_s - self.window_s - ROUNDING_S)
        leaving = max(leaving, len(self._times) + 1 - MAX_WINDOW_FRAMES)
        if self._last_end + 1 < self.first + leaving:  # one of them was in no window yet
            windows.append(self._end_window())
        del self._times[:leaving]
        self.first += leaving
        self._times.append(time_s)
        if self._is_due():
            windows.append(self._end_window())
        return windows

    def finish(self) -> list[Window]:
        """End the last window, with the last frame; there is none if it ends there already."""
        last = self.first + len(self._times) - 1
        return [self._end_window()] if last > self._last_end else []

    def _is_due(self) -> bool:
        if self._last_end < 0:  # nothing has left, or there would have been a window
            return self._times[-1] - self._times[0] >= self.window_s - ROUNDING_S
        if self.stride is not None:
            return self.first + len(self._times) - 1 - self._last_end >= self.stride
        assert self._next_due is not None
        return self._times[-1] >= self._next_due - ROUNDING_S

    def _end_window(self) -> Window:
        """Make the window that ends with the newest frame."""
        stop = self.first + len(self._times)
        self._last_end = stop - 1
        self._next_due = self._times[-1] + self.stride_s
        chosen = self.first + spread_frames(np.array(self._times), self.num_frames)
        return Window(self.first, stop, chosen)


def spread_frames(time_s: NDArray[np.float64], num_frames: int) -> NDArray[np.int64]:
    """Choose frames that are spread evenly over time, the first and the last one included.

    At a constant frame rate this is `sample_frames`, and so it is with N frames or fewer at any
    rate: all of them are taken, and some again.

    Args:
        time_s: `(n,)` ascending, in seconds.
        num_frames: N.

    Returns:
        `(N,)` positions in `time_s`, never decreasing; of two frames that are equally near to a
        point in time, the later one.
    """
    if len(time_s) <= num_frames or num_frames == 1:
        return sample_frames(len(time_s), num_frames)
    wanted = np.linspace(time_s[0], time_s[-1], num_frames)
    middles = (time_s[:-1] + time_s[1:]) / 2
    chosen: NDArray[np.int64] = np.searchsorted(middles, wanted + ROUNDING_S, side="right")
    return chosen
