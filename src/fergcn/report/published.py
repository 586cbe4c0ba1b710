"""Numbers that others published, to print beside measured ones; per cent everywhere.

Source of the tables: D. Liu, H. Zhang, P. Zhou, "Video-based Facial Expression Recognition using
Graph Convolutional Networks", ICPR 2020, by table number. What it prints is copied as it is.
"""

from dataclasses import dataclass

PAPER_DATASETS = {"ckplus": "CK+", "oulu-casia": "Oulu-CASIA", "mmi": "MMI"}
"""The datasets of Tables I to V by their names here."""

AFEW = "afew"
"""The dataset of Table VI."""


@dataclass(frozen=True)
class Published:
    """A method with its accuracy on each of `PAPER_DATASETS`, in per cent."""

    method: str
    accuracies: tuple[float | None, float | None, float | None]
    feature: str = ""
    """Static (single pictures) or dynamic (sequences), as the paper says."""


TABLE_1 = (
    Published("Inception", (93.20, None, 77.60), "static"),
    Published("IACNN", (95.37, None, 71.55), "static"),
    Published("DLP-CNN", (95.78, None, None), "static"),
    Published("FN2EN", (96.80, 87.71, None), "static"),
    Published("DeRL", (97.30, 88.00, 73.23), "static"),
    Published("PPDN", (99.30, 84.59, None), "static"),
    Published("3DCNN", (85.90, None, 53.20), "dynamic"),
    Published("ITBN", (86.30, None, 59.70), "dynamic"),
    Published("HOG 3D", (91.44, 70.63, 60.89), "dynamic"),
    Published("TMS", (91.89, None, None), "dynamic"),
    Published("3DCNN-DAP", (92.40, None, 63.40), "dynamic"),
    Published("STM-ExpLet", (94.19, 74.59, 75.12), "dynamic"),
    Published("LOMo", (95.10, 82.10, None), "dynamic"),
    Published("3D Inception-Resnet", (95.53, None, 79.26), "dynamic"),
    Published("Traj. on S+(2, n)", (96.87, 83.13, 79.19), "dynamic"),
    Published("DTAGN", (97.25, 81.46, 70.24), "dynamic"),
    Published("GCNet", (97.93, 86.11, 81.53), "dynamic"),
    Published("PHRNN-MSCNN", (98.50, 86.25, 81.18), "dynamic"),
    Published("FER-GCN", (99.54, 91.04, 85.89), "dynamic"),
)
"""Average accuracy in 10-fold cross-validation."""

_SIX = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")

CONFUSIONS: dict[str, tuple[str, tuple[str, ...], tuple[tuple[int, ...], ...]]] = {
    "ckplus": (
        "Table II",
        ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise"),
        (
            (100, 0, 0, 0, 0, 0, 0),
            (0, 100, 0, 0, 0, 0, 0),
            (0, 0, 100, 0, 0, 0, 0),
            (0, 0, 0, 100, 0, 0, 0),
            (0, 0, 0, 0, 100, 0, 0),
            (0, 0, 0, 0, 0, 100, 0),
            (0, 1, 0, 0, 0, 0, 99),
        ),
    ),
    "oulu-casia": (
        "Table III",
        _SIX,
        (
            (88, 7, 1, 0, 3, 1),
            (10, 84, 2, 0, 3, 1),
            (0, 0, 91, 4, 1, 4),
            (0, 0, 2, 98, 0, 0),
            (4, 4, 1, 0, 90, 1),
            (0, 0, 4, 0, 1, 95),
        ),
    ),
    "mmi": (
        "Table IV",
        _SIX,
        (
            (77, 13, 0, 0, 10, 0),
            (3, 91, 3, 0, 3, 0),
            (4, 0, 68, 4, 4, 20),
            (0, 0, 2, 98, 0, 0),
            (9, 0, 0, 0, 91, 0),
            (0, 0, 10, 0, 2, 88),
        ),
    ),
}
"""Table, expressions and confusion matrix of FER-GCN by dataset; row = truth."""

TABLE_5: dict[tuple[int, bool], Published] = {
    (0, False): Published("VGG16", (97.78, 85.83, 80.75)),
    (1, False): Published("VGG16 + graph module × 1", (98.39, 88.33, 84.37)),
    (2, False): Published("VGG16 + graph module × 2", (99.09, 89.79, 84.64)),
    (3, False): Published("VGG16 + graph module × 3", (99.00, 87.71, 83.07)),
    (2, True): Published("VGG16 + graph module × 2 + weighted fusion", (99.54, 91.04, 85.89)),
}
"""The ablation by (number of graph modules, whether weighted fusion follows)."""

TABLE_6 = (
    ("EmotiW2018 (baseline)", 38.81),
    ("HoloNet", 46.50),
    ("DSN-VGG-Face", 48.04),
    ("ResNe50-LSTM", 49.31),
    ("DenseNet161-pool5", 51.44),
    ("VGG-Face-LSTM", 53.91),
    ("FER-GCN", 55.67),
)
"""Accuracy on the validation set of AFEW 8.0; names as printed."""

ELSEWHERE: dict[str, tuple[str, str, float]] = {
    "ckplus": ("Emotion-FAN", "frame attention", 99.69),
    "oulu-casia": ("SD-CNN", "static", 91.3),
    "mmi": ("EST", "unconfirmed", 92.5),
    "afew": ("EfficientNet-B0 features", "validation set, clips with a face only", 59.89),
    "dfew": ("S4D", "accuracy over all clips (WAR)", 76.68),
    "ferv39k": ("S4D", "accuracy over all clips (WAR)", 53.65),
    "mafw": ("S4D", "accuracy over all clips (WAR)", 58.44),
    "ravdess": ("SVFAP", "accuracy over all clips (WAR)", 75.01),
    "crema-d": ("SVFAP", "accuracy over all clips (WAR)", 77.37),
}
"""Method, what is known of its protocol, and accuracy, published outside the paper."""
