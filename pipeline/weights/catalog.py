"""The catalog of model files: size and sha256, origin and licence of each."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.core.program import program


@dataclass(frozen=True)
class WeightsFile:
    """One model file.

    Attributes:
        name: Its path in the model's folder: the file name, after folders where it is in some.
        size: Size in bytes; 0 if not known for certain.
        sha256: Hex digest; "" if not known. Loading then still accepts only weights whose names
            and shapes are exactly the model's.
        member: Path inside the package or the zip archive that carries it; "" if it has an address
            of its own.
        offset: Where it begins in that member, in bytes.
        url: Its address, or the archive's; "" if it is in a package or on the hub.
    """

    name: str
    size: int
    sha256: str
    member: str = ""
    offset: int = 0
    url: str = ""


@dataclass(frozen=True)
class Weights:
    """The files of one model, and what a user should know about them.

    Attributes:
        name: Name of the model, as in ``weights fetch NAME``.
        files: Its files.
        licence: Licence of the files.
        about: What they are, in a few words.
        wheel: The wheel on PyPI that carries the files; "" if none does.
        package: The package that the wheel installs.
        npm: The npm package that carries the files, with its version; "" if none does.
        npm_sha256: Hex digest of that package's tarball.
        without: What a run is like that has to do without the model; "" if none can.
        page: Where the user takes the file and reads its terms; "" where it can be fetched.
        hub: The repository of the Hugging Face Hub that carries the files. It is gated: the user
            asks for access there, and the files are fetched with the user's token; "" if none does.
        folder: The folder of its files, in the cache and in a user's folder of model files; "" if
            they are in it directly.
    """

    name: str
    files: tuple[WeightsFile, ...]
    licence: str
    about: str
    wheel: str = ""
    package: str = ""
    npm: str = ""
    npm_sha256: str = ""
    without: str = ""
    page: str = ""
    hub: str = ""
    folder: str = ""

    @property
    def hub_page(self) -> str:
        """Where access to a gated repository is asked for."""
        return f"https://huggingface.co/{self.hub}"

    @property
    def how(self) -> str:
        """The command that fetches the files, or what to do instead."""
        if self.page:
            return f"take it from {self.page}, and give it with --model FILE"
        command = f"{program()} weights fetch {self.name}"
        if self.hub:
            return f"{command}, with your token, after access is granted on {self.hub_page}"
        return command

    @property
    def source(self) -> str:
        """Where the files come from, in words."""
        if self.wheel:
            return f"out of {self.wheel}, through pip"
        if self.npm:
            return f"out of {self.npm}, through npm"
        if self.hub:
            return f"from {self.hub_page}"
        return f"from {self.files[0].url.split('/')[2]}"

    @property
    def missing(self) -> str:
        """One line for a run that has to do without the model."""
        return f"the {self.name} model is not here: {self.without}; get it with: {self.how}"


DEFAULT = "default"
"""As a name in ``weights fetch``: all models of the default profile."""

REGISTRY = {
    "blazepose": Weights(
        name="blazepose",
        files=(
            WeightsFile(
                "pose_detection.tflite",
                2959046,
                "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
                "mediapipe/modules/pose_detection/pose_detection.tflite",
            ),
            WeightsFile(
                "pose_landmark_full.tflite",
                6440512,
                "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
                "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
            ),
        ),
        licence="Apache-2.0",
        about="BlazePose detector and landmarks (MediaPipe Pose, full)",
        wheel="mediapipe==0.10.21",
        package="mediapipe",
    ),
    "person-detector": Weights(
        name="person-detector",
        files=(
            WeightsFile(
                "object_detection_ssd_mobilenetv2_oidv4_fp16.tflite",
                9987728,
                "d0a5255bf8c4f5a0bc4240741a76c41d5e939f7655078f945f50ab53a9375da6",
                "package/objectron_solution_packed_assets.data",
                offset=184,
            ),
        ),
        licence="Apache-2.0",
        about="SSD-MobileNetV2 person detector (Open Images V4; MediaPipe Objectron)",
        npm="@mediapipe/objectron@0.4.1675468480",
        npm_sha256="fc3e37b326b05e8f596099c90b3e0931b05a56cd3160b9ac450b621794bac94c",
        without="people who are small, in groups or cut off are found later or not at all",
    ),
}
"""The models of the default profile."""

_ULTRALYTICS = "https://github.com/ultralytics/assets/releases/download/v8.4.0"
_META = "https://dl.fbaipublicfiles.com/segment_anything"
_AGPL = "AGPL-3.0"
_APACHE = "Apache-2.0; ultralytics, which runs it, is AGPL-3.0"


def _single(
    name: str,
    folder: str,
    file: str,
    size: int,
    sha256: str,
    licence: str,
    about: str,
) -> Weights:
    """A model of one file, at ``folder/file``."""
    weights_file = WeightsFile(file, size, sha256, url=f"{folder}/{file}")
    return Weights(name=name, files=(weights_file,), licence=licence, about=about)


def _taken(name: str, file: str, page: str, licence: str, about: str) -> Weights:
    """A model of one file that the user takes from a page with terms of its own."""
    files = (WeightsFile(file, 0, ""),)
    return Weights(name=name, files=files, licence=licence, about=about, page=page)


_SAM_LICENSE = (
    "SAM License (commercial use allowed; military, weapons and espionage uses forbidden)"
)
_RIG = "assets/mhr_model.pt"
"""The MHR rig's path in a release of SAM 3D Body, and in the archive of MHR's own release."""


def _sam3d(name: str, hub: str, about: str) -> Weights:
    """A release of SAM 3D Body: a folder as it is on the hub."""
    files = tuple(WeightsFile(file, 0, "") for file in ("model.ckpt", "model_config.yaml", _RIG))
    licence = f"{_SAM_LICENSE}; the MHR rig in it: Apache-2.0"
    return Weights(name=name, files=files, licence=licence, about=about, hub=hub, folder=name)


OPTIONAL = {
    weights.name: weights
    for weights in (
        # ultralytics publishes no ViT-H. SAM's files are Meta's own, whose layers are the same.
        _single(
            "sam-h", _META, "sam_vit_h_4b8939.pth", 2564550879,
            "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
            _APACHE, "SAM, ViT-H",
        ),
        _single(
            "sam-b", _META, "sam_vit_b_01ec64.pth", 375042383,
            "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
            _APACHE, "SAM, ViT-B",
        ),
        _single(
            "mobile-sam", _ULTRALYTICS, "mobile_sam.pt", 40728226,
            "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
            _APACHE, "MobileSAM",
        ),
        _single(
            "fastsam-s", _ULTRALYTICS, "FastSAM-s.pt", 23851578,
            "c9f78716a81c7aff0d608ccc73e1b82ab3aaad86005049f6a92106a0be6d0844",
            _AGPL, "FastSAM, small",
        ),
        _single(
            "fastsam-x", _ULTRALYTICS, "FastSAM-x.pt", 144972346,
            "752cadc2828edb1cd4bc4f9eb587100631af06ea2108f4c9ed56df4755701e76",
            _AGPL, "FastSAM, large",
        ),
        _single(
            "yolo26n-pose", _ULTRALYTICS, "yolo26n-pose.pt", 7878574,
            "eb3bb8268828aeaf515cec23a4bfafd793944a86fe9af94ba7823609c14522a9",
            _AGPL, "YOLO26 pose, nano",
        ),
        _single(
            "yolo26s-pose", _ULTRALYTICS, "yolo26s-pose.pt", 24151790,
            "a083adb42303728ae14c4bd6bd56d80da46f82fb2564dbd6f31dcc92ea321646",
            _AGPL, "YOLO26 pose, small",
        ),
        _single(
            "yolo26n-depth", _ULTRALYTICS, "yolo26n-depth.pt", 0,
            "befed1b8561d8b2eaa66274b070cdfc9c44853bda6d6d62a04759f9383af74e9",
            _AGPL, "YOLO26 monocular depth, nano",
        ),
        _single(
            "yolo26s-depth", _ULTRALYTICS, "yolo26s-depth.pt", 0, "",
            _AGPL, "YOLO26 monocular depth, small",
        ),
        _taken(
            "instanthmr", "instanthmr.onnx", "https://huggingface.co/momolesang/InstantHMR",
            "SAM License (commercial use allowed, some uses forbidden); the authors' later files "
            "are for non-commercial use",
            "InstantHMR, the authors' file (77 MB, half precision)",
        ),
        _taken(
            "instanthmr-apache", "instanthmr-apache.onnx",
            "https://github.com/Naturalpad-studio/InstantHMR",
            "Apache-2.0, as the page that re-hosts it says",
            "InstantHMR, the less accurate file (PA-MPJPE on 3DPW 51 mm, the authors' best 40 mm)",
        ),
        _sam3d(
            "sam3d-dinov3", "facebook/sam-3d-body-dinov3",
            "SAM 3D Body with the DINOv3 ViT-H+ backbone (953 million parameters)",
        ),
        _sam3d(
            "sam3d-vith", "facebook/sam-3d-body-vith",
            "SAM 3D Body with the ViT-H backbone (744 million parameters)",
        ),
        Weights(
            name="mhr-rig",
            files=(
                WeightsFile(
                    _RIG, 0, "", member=_RIG,
                    url="https://github.com/facebookresearch/MHR/releases/download/v1.0.0/assets.zip",
                ),
            ),
            licence="Apache-2.0",
            about="the MHR rig alone (0.7 GB, out of a larger archive)",
            folder="mhr-rig",
        ),
    )
}  # fmt: skip
"""Models of other profiles and of the benchmark. Each is fetched only by its name."""
