"""The demo command: the whole job on what the package ships."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fergcn.analysis.config import AnalysisConfig
from fergcn.analysis.network import FaceNetwork
from fergcn.checkpoint import load_checkpoint
from fergcn.commands.crossval import crossval
from fergcn.commands.flags import NetworkOptions
from fergcn.commands.predict import analyze_to, answer_lines
from fergcn.commands.progress import progress_bars, stdout
from fergcn.training.config import TrainConfig

DEMO_VIDEO = Path(__file__).parent.parent / "datasets" / "demo.mp4"
DATASET = "rendered-apex"
BACKBONE = "rendered-only"
FOLDS = 5
EPOCHS = 30


def demo(
    *,
    video: Path = DEMO_VIDEO,
    output: Annotated[Path, Parameter(name=["--output", "-o"])] = Path("results/demo"),
) -> None:
    """Train and test FER-GCN on the bundled dataset, then analyse a video.

    Cross-validation runs with fewer folds and epochs than the paper's, on a backbone that stays
    frozen: it was trained on rendered people that the bundled dataset does not hold.

    Args:
        video: a video of your own; without one, the rendered video in the package.
        output: folder of the results.
    """
    start = load_checkpoint(BACKBONE)
    stdout.print(
        f"[bold]1. FER-GCN on the bundled dataset[/bold]: {FOLDS} folds, {EPOCHS} epochs, "
        "frozen backbone"
    )
    crossval(
        DATASET,
        folds=FOLDS,
        output=output / "crossval",
        model=NetworkOptions(backbone=start.model.config.backbone),
        training=TrainConfig(
            epochs=EPOCHS,
            init=BACKBONE,
            freeze_backbone=True,
            batch_size=16,
            optimizer="adamw",
            schedule="cosine",
            resize=start.resize,
            crop=start.crop,
            accelerator="cpu",
        ),
    )
    stdout.print("\n[bold]2. A video[/bold]")
    directory = output / video.stem
    network = FaceNetwork("default")
    drawn = ("overlay.mp4", "report.html")
    with progress_bars() as progress:
        analysis = analyze_to(video, directory, network, AnalysisConfig(), drawn, progress)
    for line in answer_lines(video.name, analysis, directory):
        stdout.print(line, soft_wrap=True, highlight=False)
    stdout.print("\n[bold]Look at[/bold]")
    for path, content in (
        (directory / "report.html", "the page with everything about the video"),
        (directory / "overlay.mp4", "the video with faces and expressions marked"),
        (directory / "timeline.png", "the plot over time"),
        (directory / "segments.csv", "onset, apex and offset of each expression"),
        (directory / "frames.csv", "every frame"),
        (output / "crossval" / "predictions.csv", "every test clip of the cross-validation"),
    ):
        stdout.print(f"  {path}  {content}", soft_wrap=True, highlight=False)
