"""Datasets: each is one function that lists clips; nothing after it knows which one it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from fergcn.clips import Clip
from fergcn.datasets.afew import read_afew
from fergcn.datasets.ckplus import read_ckplus
from fergcn.datasets.cremad import read_cremad
from fergcn.datasets.dfew import read_dfew
from fergcn.datasets.ferv39k import read_ferv39k
from fergcn.datasets.folder import read_folder
from fergcn.datasets.layout import Listing
from fergcn.datasets.mafw import read_mafw
from fergcn.datasets.mmi import read_mmi
from fergcn.datasets.oulu_casia import read_oulu_casia
from fergcn.datasets.ravdess import read_ravdess
from fergcn.datasets.rendered import BUNDLED, read_rendered
from fergcn.datasets.stills import read_stills
from fergcn.expressions import EXPRESSIONS, FergcnError
from fergcn.prepare import prepared_dataset, read_prepared

Scheme = Literal["subjects", "contiguous", "official", "stratified"]
"""How folds are made: from the rank of each subject, from blocks of subjects, as the dataset says,
or from clips with all classes in each."""

SIX = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
SEVEN = (*SIX, "neutral")


@dataclass(frozen=True)
class Dataset:
    """A dataset and what the literature says is in it."""

    title: str
    read: Callable[[Path], Listing]
    """Lists the clips below a folder."""
    obtain: str
    """How to get it."""
    expressions: tuple[str, ...] = ()
    """The classes; empty where the data decides."""
    clips: int | None = None
    """Clips that the protocol counts."""
    subjects: int | None = None
    """People in them; None where nobody knows."""
    expected: Mapping[str, int] = field(default_factory=dict)
    """Clips of each expression, where published."""
    parts: Mapping[str, int] = field(default_factory=dict)
    """Clips of official parts, keyed as `check.part_counts` keys them, where published."""
    scheme: Scheme = "subjects"
    """How its folds are made."""
    folds: int = 10
    fold_sizes: tuple[int, ...] = ()
    """Clips in each fold made from subjects, where published or plain arithmetic."""
    remark: str = ""
    """What to know when the counts differ."""
    aligned: bool = False
    """Whether its clips are aligned faces already."""
    bundled: Path | None = None
    """Folder of the edition in the package."""


DATASETS: dict[str, Dataset] = {
    "ckplus": Dataset(
        "CK+ (extended Cohn-Kanade)",
        read_ckplus,
        "sign the agreement at https://www.jeffcohn.net/resources",
        ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise"),
        clips=327,
        subjects=118,
        expected={
            "anger": 45,
            "contempt": 18,
            "disgust": 59,
            "fear": 25,
            "happiness": 69,
            "sadness": 28,
            "surprise": 83,
        },
        fold_sizes=(33, 39, 40, 35, 30, 37, 29, 29, 33, 22),
        remark="The distribution has 593 sequences of 123 subjects; those without a label are left "
        "out.",
    ),
    "oulu-casia": Dataset(
        "Oulu-CASIA, visible light, strong illumination",
        read_oulu_casia,
        "sign the agreement of the Center for Machine Vision and Signal Analysis, Oulu",
        SIX,
        clips=480,
        subjects=80,
        expected=dict.fromkeys(SIX, 80),
        fold_sizes=(48,) * 10,
    ),
    "mmi": Dataset(
        "MMI, posed expressions from the front",
        read_mmi,
        "sign the agreement at https://mmifacedb.eu",
        SIX,
        clips=205,
        subjects=30,
        remark="The paper counts 205 of 213 labelled sequences and does not name them; others use "
        "208 of 31 subjects.",
    ),
    "afew": Dataset(
        "AFEW 8.0",
        read_afew,
        "sign the agreement of the organisers of EmotiW",
        SEVEN,
        clips=1156,
        parts={
            "training": 773,
            "training, anger": 133,
            "training, disgust": 74,
            "training, fear": 81,
            "training, happiness": 150,
            "training, neutral": 144,
            "training, sadness": 117,
            "training, surprise": 74,
            "test": 383,
            "test, anger": 64,
            "test, disgust": 40,
            "test, fear": 46,
            "test, happiness": 63,
            "test, neutral": 63,
            "test, sadness": 61,
            "test, surprise": 46,
        },
        scheme="official",
        folds=1,
        remark="Tested on the validation part; a clip without a face stays in the denominator.",
    ),
    "dfew": Dataset(
        "DFEW, single-labelled",
        read_dfew,
        "sign the agreement at https://dfew-dataset.github.io",
        SEVEN,
        clips=11697,
        parts={
            "set 1, training": 9356,
            "set 1, test": 2341,
            "set 2, training": 9356,
            "set 2, test": 2341,
            "set 3, training": 9357,
            "set 3, test": 2340,
            # What is left for sets 4 and 5 differs a little more: counted in the lists themselves.
            "set 4, training": 9358,
            "set 4, test": 2339,
            "set 5, training": 9361,
            "set 5, test": 2336,
        },
        scheme="official",
        folds=5,
    ),
    "ferv39k": Dataset(
        "FERV39k, all scenes",
        read_ferv39k,
        "sign the agreement at https://wangyanckxx.github.io/Proj_CVPR2022_FERV39k.html",
        SEVEN,
        clips=38935,
        parts={"training": 31088, "test": 7847},
        scheme="official",
        folds=1,
    ),
    "mafw": Dataset(
        "MAFW, single-labelled",
        read_mafw,
        "sign the agreement at https://mafw-database.github.io/MAFW",
        (*SEVEN, "anxiety", "contempt", "disappointment", "helplessness"),
        parts={"set 1, training": 7332, "set 1, test": 1838},
        scheme="official",
        folds=5,
    ),
    "ravdess": Dataset(
        "RAVDESS, speech",
        read_ravdess,
        "download the videos of speech from https://zenodo.org/records/1188976",
        (*SEVEN, "calm"),
        clips=1440,
        subjects=24,
        # Each actor says everything twice per intensity; there is no strong neutral.
        expected={**dict.fromkeys((*SIX, "calm"), 192), "neutral": 96},
        parts={f"set {number}, test": 240 for number in range(1, 7)},
        scheme="official",
        folds=6,
    ),
    "crema-d": Dataset(
        "CREMA-D",
        read_cremad,
        "clone https://github.com/CheyneyComputerScience/CREMA-D with git lfs",
        ("anger", "disgust", "fear", "happiness", "neutral", "sadness"),
        clips=7442,
        subjects=91,
        folds=5,
    ),
    "folder": Dataset(
        "your own clips",
        read_folder,
        "make ROOT/<expression>/<clip>.mp4 and, best, ROOT/subjects.csv",
        remark="Write subjects.csv (clip,subject_id), so that nobody is in training and test.",
    ),
    "stills": Dataset(
        "single pictures of faces",
        read_stills,
        "make ROOT/<expression>/<person>_<number>.jpg",
        remark="A clip of one picture is that picture in every frame: nothing moves.",
    ),
    "rendered": Dataset(
        "rendered heads, all clips",
        read_rendered,
        "in the package; more: fergcn render",
        EXPRESSIONS,
        clips=640,
        subjects=40,
        expected=dict.fromkeys(EXPRESSIONS, 80),
        aligned=True,
        bundled=BUNDLED,
    ),
    "rendered-apex": Dataset(
        "rendered heads, neutral to apex",
        partial(read_rendered, kind="onset_apex"),
        "in the package; more: fergcn render",
        EXPRESSIONS,
        clips=320,
        subjects=40,
        expected=dict.fromkeys(EXPRESSIONS, 40),
        aligned=True,
        bundled=BUNDLED,
    ),
    "rendered-offset": Dataset(
        "rendered heads, neutral to apex and back",
        partial(read_rendered, kind="onset_apex_offset"),
        "in the package; more: fergcn render",
        EXPRESSIONS,
        clips=320,
        subjects=40,
        expected=dict.fromkeys(EXPRESSIONS, 40),
        aligned=True,
        bundled=BUNDLED,
    ),
    "rendered-anywhere": Dataset(
        "rendered heads, apex in any frame",
        partial(read_rendered, kind="anywhere"),
        "run fergcn render FOLDER --kinds anywhere",
        EXPRESSIONS,
        aligned=True,
    ),
    "rendered-still": Dataset(
        "rendered heads, pictures at the apex",
        partial(read_rendered, kind="still"),
        "run fergcn render FOLDER --kinds still",
        EXPRESSIONS,
        aligned=True,
        remark="A clip of one picture is that picture in every frame: nothing moves.",
    ),
}
"""Every dataset by its name."""


def find_dataset(name: str) -> Dataset:
    """Look a dataset up.

    Raises:
        FergcnError: the name is unknown.
    """
    if name not in DATASETS:
        raise FergcnError(
            f"found the dataset {name}, expected one of {', '.join(DATASETS)}: choose one of these"
        )
    return DATASETS[name]


def list_dataset(name: str, root: Path | None = None) -> Listing:
    """Read what is in a dataset's folder, with what is no part of the protocol.

    Args:
        name: a key of `DATASETS`.
        root: the dataset's folder; None for the edition in the package.

    Raises:
        FergcnError: the name is unknown, the folder has another layout, or none is given for a
            dataset that is not in the package.
    """
    dataset = find_dataset(name)
    folder = root or dataset.bundled
    if folder is None:
        raise FergcnError(
            f"found no folder for {name}, expected the one that holds the dataset: name it "
            f"(to get it, {dataset.obtain})"
        )
    return dataset.read(folder)


def load_dataset(name: str, root: Path | None = None) -> list[Clip]:
    """Read the aligned faces of a dataset.

    Args:
        name: a key of `DATASETS`.
        root: the store that was prepared from it, or the folder of a rendered dataset; None for
            the edition in the package.

    Raises:
        FergcnError: as `list_dataset`; the store is of another dataset, or the folder holds no
            aligned faces yet.
    """
    dataset = find_dataset(name)
    if root is not None and (prepared := prepared_dataset(root)) is not None:
        if prepared != name:
            raise FergcnError(
                f"{root}: found faces of the dataset {prepared}, expected {name}: "
                f"choose {prepared}, or another folder"
            )
        return read_prepared(root)
    clips = list_dataset(name, root).clips
    if not dataset.aligned:
        raise FergcnError(
            f"{root}: found {name} as it is distributed, expected aligned faces: "
            f"run fergcn prepare {name} {root} -o STORE and name the store"
        )
    return clips
