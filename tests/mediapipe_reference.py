"""What MediaPipe's own Pose graph sees in a clip: ``python mediapipe_reference.py CLIP OUT.npz``.

Runs in an environment of its own (``pip install mediapipe==0.10.21``, Python 3.11): it pins old
packages. Writes ``found`` (T,), and for the frames in which it finds somebody ``frame`` (N,),
``landmarks_px`` (N, 33, 2), ``visibility`` (N, 33), ``world_m`` (N, 33, 3); ``image_size``.
"""

import sys

import cv2
import mediapipe as mp
import numpy as np


def main(clip: str, out: str) -> None:
    capture = cv2.VideoCapture(clip)
    width, height = int(capture.get(3)), int(capture.get(4))
    rows = {"frame": [], "landmarks_px": [], "visibility": [], "world_m": [], "found": []}
    with mp.solutions.pose.Pose(model_complexity=1, smooth_landmarks=False) as pose:
        index = 0
        while True:
            ok, image = capture.read()
            if not ok:
                break
            seen = pose.process(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
            rows["found"].append(seen.pose_landmarks is not None)
            if seen.pose_landmarks is not None:
                points = seen.pose_landmarks.landmark
                world = seen.pose_world_landmarks.landmark
                rows["frame"].append(index)
                rows["landmarks_px"].append([[p.x * width, p.y * height] for p in points])
                rows["visibility"].append([p.visibility for p in points])
                rows["world_m"].append([[p.x, p.y, p.z] for p in world])
            index += 1
    np.savez_compressed(
        out, image_size=(height, width), **{k: np.array(v) for k, v in rows.items()}
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
