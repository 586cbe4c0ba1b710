"""`python -m fergcn` is the `fergcn` command."""

import signal
import sys
import threading
from types import FrameType

RETRY_S = 0.01
"""Until Ctrl-C is tried again where it could not be raised."""


def main() -> None:
    """Run the command line; Ctrl-C is one line and exit code 130, also while it is imported."""
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _interrupt)
        from fergcn.cli import main as run

        run()
    except KeyboardInterrupt:
        print(
            "fergcn: stopped; the same command keeps what is done and does the rest",
            file=sys.stderr,
        )
        sys.exit(130)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, but not where it would be lost: then a moment later."""
    video = sys.modules.get("fergcn.video")
    if video is not None and hasattr(video, "is_reading") and video.is_reading(frame):
        again = threading.Timer(RETRY_S, signal.raise_signal, [number])
        again.daemon = True
        again.start()
        return
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
