"""Speed of `fer` on a video; runs in its environment, see `fergcn.peers`.

fer_video.py haar|mtcnn VIDEO TABLE: reads every frame, finds faces and expressions, writes a line
for each face, and tells the frames a second. Loading the models and the first frame do not count.
"""

import csv
import json
import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print does not get into the answer

import cv2  # noqa: E402

mode, video, table_file = sys.argv[1:]
if mode == "mtcnn":
    import facenet_pytorch  # noqa: F401 - PyTorch after TensorFlow aborts: both bring an LLVM

from fer.fer import FER  # noqa: E402

detector = FER(mtcnn=mode == "mtcnn")
detector.detect_emotions(cv2.VideoCapture(video).read()[1])
start, num_frames = time.perf_counter(), 0
frames = cv2.VideoCapture(video)
with open(table_file, "w", newline="") as file:
    table = csv.writer(file)
    while (frame := frames.read()[1]) is not None:
        for face in detector.detect_emotions(frame):
            table.writerow([num_frames, *face["box"], *face["emotions"].values()])
        num_frames += 1
json.dump({"frames_per_s": num_frames / (time.perf_counter() - start)}, answers)
answers.close()
