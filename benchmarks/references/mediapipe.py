"""Write the results of MediaPipe's own Pose graph, for ``python -m app evaluate --truth``:

    python -m benchmarks.references.mediapipe CLIP OUT.npz [--smooth]

It needs an environment of its own (``pip install mediapipe==0.10.21``, Python 3.11), because
MediaPipe pins old packages. The file has ``found`` (T,) for all T frames; and for the N frames in
which a person is found: ``frame`` (N,), ``landmarks_px`` (N, 33, 2) with pixel centres at whole
numbers, ``visibility`` (N, 33), ``world_m`` (N, 33, 3), and ``mask`` (N, bytes), packed bits of
``mask_shape`` (half the picture's); and ``image_size`` (height, width). With ``--smooth`` the graph
smooths landmarks and masks over time.
"""

import argparse

import cv2
import mediapipe as mp
import numpy as np


def read_person(result, width: int, height: int) -> dict[str, object]:
    """Return one frame's arrays from a result with a person."""
    points, world = result.pose_landmarks.landmark, result.pose_world_landmarks.landmark
    small = cv2.resize(result.segmentation_mask, (width // 2, height // 2))
    return {
        # MediaPipe counts from the picture's edge; here pixel centres are whole numbers.
        "landmarks_px": [[p.x * width - 0.5, p.y * height - 0.5] for p in points],
        "visibility": [p.visibility for p in points],
        "world_m": [[p.x, p.y, p.z] for p in world],
        "mask": np.packbits(small > 0.5),
    }


def main(clip: str, out: str, smooth: bool) -> None:
    capture = cv2.VideoCapture(clip)
    if not capture.isOpened():
        raise SystemExit(f"error: {clip}: cannot be read")
    width, height = int(capture.get(3)), int(capture.get(4))
    found, rows = [], {"frame": [], "landmarks_px": [], "visibility": [], "world_m": [], "mask": []}
    with mp.solutions.pose.Pose(
        model_complexity=1,
        smooth_landmarks=smooth,
        enable_segmentation=True,
        smooth_segmentation=smooth,
    ) as pose:
        while True:
            ok, image = capture.read()
            if not ok:
                break
            result = pose.process(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
            found.append(result.pose_landmarks is not None)
            if found[-1]:
                rows["frame"].append(len(found) - 1)
                for key, value in read_person(result, width, height).items():
                    rows[key].append(value)
    # With all dimensions, so that a clip without people gives a readable file too.
    empty = {
        "frame": (0,), "landmarks_px": (0, 33, 2), "visibility": (0, 33), "world_m": (0, 33, 3),
        "mask": (0, -(-(height // 2) * (width // 2) // 8)),
    }  # fmt: skip
    arrays = {key: np.array(rows[key]) if rows[key] else np.zeros(empty[key]) for key in rows}
    arrays["mask"] = arrays["mask"].astype(np.uint8)
    np.savez_compressed(
        out,
        found=np.array(found, bool),
        image_size=(height, width),
        mask_shape=(height // 2, width // 2),
        **arrays,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="MediaPipe's own Pose graph over a clip.")
    parser.add_argument("clip")
    parser.add_argument("out")
    parser.add_argument("--smooth", action="store_true", help="with the graph's own smoothing")
    main(**vars(parser.parse_args()))
