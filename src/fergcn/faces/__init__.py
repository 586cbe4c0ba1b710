"""From a video frame to aligned faces: detect, track, align."""
