"""Answers of `fer` for faces; runs in its environment, see `fergcn.peers`."""

import csv
import math
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print does not get between the answers

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from fer.fer import FER  # noqa: E402

detector = FER()
names = {"angry": "anger", "happy": "happiness", "sad": "sadness"}
table = csv.writer(answers, lineterminator="\n")
table.writerow(names.get(name, name) for name in detector._get_labels().values())
with os.fdopen(0, "rb") as stream:
    while stream.peek(1):
        np.lib.format.read_magic(stream)  # read_array does not take pipes
        shape = np.lib.format.read_array_header_1_0(stream)[0]
        faces = np.frombuffer(stream.read(math.prod(shape)), np.uint8).reshape(shape)
        grey = [cv2.resize(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), (64, 64)) for face in faces]
        # as detect_emotions does, which would find the face itself and round to two digits
        scaled = (np.array(grey, dtype="float32") / 255 - 0.5) * 2
        table.writerows(np.asarray(detector._classify_emotions(scaled), dtype=float).tolist())
answers.close()
