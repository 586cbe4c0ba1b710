"""The calibrate command: a temperature that makes probabilities say what they mean."""

import sys
from pathlib import Path

from fergcn.commands.flags import Output
from fergcn.commands.progress import progress_bars, stdout


def calibrate(
    checkpoint: str,
    dataset: str,
    root: Path | None = None,
    /,
    *,
    output: Output,
    hold_out: int | None = None,
    other_people: bool = False,
) -> int:
    """Make a checkpoint's probabilities say what they mean.

    One temperature is fitted on people that the checkpoint was not trained on, and folded into its
    classifier: answers stay the same, and nothing is slower.

    Args:
        checkpoint: folder of a checkpoint, or the name of one in the package.
        dataset: name of a dataset, see fergcn datasets.
        root: its folder, as in fergcn evaluate.
        output: folder of the new checkpoint.
        hold_out: take the people only whom fergcn train left out with the same number.
        other_people: the checkpoint was trained on nobody of the dataset, though it can't be seen.
    """
    from fergcn.calibration import calibrate_checkpoint
    from fergcn.checkpoint import load_checkpoint
    from fergcn.evaluation import load_faces
    from fergcn.folds import split_people

    loaded = load_checkpoint(checkpoint)
    with progress_bars() as report:
        clips, failures = load_faces(dataset, root, loaded.model.config.num_frames, report)
        if hold_out is not None:
            clips = split_people(clips, hold_out)[1]
        about = calibrate_checkpoint(loaded, clips, output, dataset, hold_out, other_people, report)
    for reason in failures:
        print(f"fergcn: {reason}", file=sys.stderr)
    before, after = (about[when]["expected_calibration_error"] for when in ("before", "after"))
    stdout.print(
        f"temperature {about['temperature']:.3f}, fitted on {about['count']} clips of "
        f"{about['num_subjects']} people\nexpected calibration error: {before:.3f} before, "
        f"{after:.3f} after (each clip with a temperature of other people)\n"
        f"checkpoint: {output}",
        soft_wrap=True,
        highlight=False,
    )
    return int(bool(failures))
