"""Files are read strictly, and what is wrong with one is one line."""

import pytest
import torch
from safetensors.torch import load_file

from pipeline.sam3d import checkpoint
from pipeline.sam3d.checkpoint import load_sam3d, read_backbone, read_rig
from pipeline.sam3d.config import CONFIGS
from pipeline.sam3d.release import find_files
from pipeline.weights.torch_file import CheckpointError
from tests.pipeline.sam3d.conftest import read_manifest
from tests.pipeline.sam3d.golden_rule import TINY, rig_tensors
from tests.support.sam3d_release import program_of, settings, write_release

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def release(tmp_path_factory, weights, synthetic):
    """A folder as a release is downloaded, at tiny widths."""
    return write_release(tmp_path_factory.mktemp("release"), weights, rig_tensors(synthetic))


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(CONFIGS, "dinov3", TINY)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_a_release_is_loaded_and_converted_once(
    release, cache, weights, network, looked, monkeypatch
):
    loaded = load_sam3d(find_files(release), CPU, cache)
    assert not any(p.requires_grad for p in loaded.parameters())
    (converted,) = cache.iterdir()
    kept = load_file(converted)
    assert kept.keys() == weights.keys()
    for name, value in weights.items():
        expected = value.to(torch.bfloat16) if name.startswith("backbone.") else value
        assert torch.equal(kept[name], expected), name
    expected = network.decode(looked["body"]).keypoints_m
    torch.testing.assert_close(loaded.decode(looked["body"]).keypoints_m, expected)

    def refuse(path):
        raise AssertionError("the checkpoint is read again")

    monkeypatch.setattr(checkpoint, "read_state", refuse)
    again = load_sam3d(find_files(release), CPU, cache).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in loaded.state_dict().items())


def test_half_precision_changes_features_by_little(release, cache, network, golden):
    loaded = load_sam3d(find_files(release), CPU, cache)
    pixels = golden["body/crop"].float()
    whole, half = network.features(pixels), loaded.features(pixels)
    assert half.dtype == torch.float32
    assert (half - whole).norm() / whole.norm() < 2e-2


def test_in_float32_the_checkpoint_itself_is_read_and_nothing_is_kept(release, cache, weights):
    loaded = load_sam3d(find_files(release), CPU, cache, half=False)
    assert not cache.exists()
    assert next(loaded.backbone.parameters()).dtype == torch.float32
    norm = "decoder.norm_final.weight"
    assert torch.equal(loaded.state_dict()[norm], weights[norm])


def test_a_damaged_file_in_the_cache_is_made_again(release, cache):
    load_sam3d(find_files(release), CPU, cache)
    (converted,) = cache.iterdir()
    size = converted.stat().st_size
    converted.write_bytes(converted.read_bytes()[: size // 2])
    load_sam3d(find_files(release), CPU, cache)
    assert converted.stat().st_size == size


def changed(release, folder, change):
    """The release with another state dict."""
    state = torch.load(release / "model.ckpt")["state_dict"]
    change(state)
    torch.save(state, folder / "model.ckpt")
    (folder / "assets").mkdir()
    (folder / "assets/mhr_model.pt").symlink_to(release / "assets/mhr_model.pt")
    return find_files(folder)


def fails(files, cache, *words):
    with pytest.raises(CheckpointError) as caught:
        load_sam3d(files, CPU, cache)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
    assert not cache.exists() or not list(cache.iterdir())


def test_weights_that_inference_does_not_need_may_be_there(release, tmp_path, cache, weights):
    def change(state):
        state["backbone.encoder.mask_token"] = torch.zeros(1, 64)
        state["head_pose.hand_pose_comps_ori"] = torch.eye(54)
        state["head_pose_hand.mhr.character_torch.mesh.faces"] = torch.zeros(3, 3)

    files = changed(release, tmp_path, change)
    assert files.config is None
    load_sam3d(files, CPU, cache)
    (converted,) = cache.iterdir()
    assert load_file(converted).keys() == weights.keys()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda state: state.pop("init_pose.weight"), "1 missing (init_pose.weight)"),
        (lambda state: state.update(other=torch.ones(1)), "1 extra (other)"),
        (lambda state: state.update({"init_camera.weight": torch.ones(1, 4)}), "(1, 4), not"),
        (lambda state: state["bbox_embed.layers.0.bias"].fill_(torch.nan), "not finite"),
        (lambda state: state.clear() or state.update(x=torch.ones(1)), "not the weights of SAM 3D"),
    ],
)
def test_other_weights_are_refused(release, tmp_path, cache, change, word):
    files = changed(release, tmp_path, change)
    fails(files, cache, str(files.checkpoint), word)


def test_files_of_two_releases_are_not_mixed(release, tmp_path, cache):
    files = changed(release, tmp_path, lambda state: None)
    (tmp_path / "model_config.yaml").write_text(settings("vit_hmr_512_384"))
    with pytest.raises(CheckpointError, match="take both from one release"):
        load_sam3d(find_files(tmp_path), CPU, cache)
    assert files.checkpoint == tmp_path / "model.ckpt"


@pytest.mark.parametrize("part", ["model.ckpt", "assets/mhr_model.pt"])
def test_truncated_files_are_named(release, tmp_path, cache, part):
    for name in ("model.ckpt", "assets/mhr_model.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        data = (release / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2] if name == part else data)
    files = find_files(tmp_path)
    with pytest.raises(CheckpointError, match="damaged") as caught:
        load_sam3d(files, CPU, cache)
    assert str(tmp_path / part) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_rig_is_refused(tmp_path, synthetic):
    tensors = rig_tensors(synthetic)
    tensors.pop("character_torch.skeleton.joint_parents")
    torch.jit.save(torch.jit.script(program_of(tensors)), tmp_path / "rig.pt")
    with pytest.raises(CheckpointError, match=r"rig\.pt.*joint_parents is missing"):
        read_rig(tmp_path / "rig.pt")


def test_settings_are_checked(tmp_path):
    path = tmp_path / "model_config.yaml"
    path.write_text(settings("vit_hmr_512_384"))
    assert read_backbone(path) == "vith"
    laughs = "a: &a [x, x]\n" + "".join(
        f"b{n}: &b{n} [*{'a' if not n else f'b{n - 1}'}, *{'a' if not n else f'b{n - 1}'}]\n"
        for n in range(40)
    )
    for text, word in (
        (settings(ENABLE_TWOWAY=True), "MODEL.DECODER.ENABLE_TWOWAY is True; only False"),
        (settings("resnet"), "MODEL.BACKBONE.TYPE is 'resnet'"),
        ("MODEL: 3", "MODEL.IMAGE_SIZE is not there"),
        ("!!python/object/apply:os.system [true]", "no file of settings"),
        ("[" * 5000, "no file of settings"),
        (laughs + "MODEL: {IMAGE_SIZE: *b39}", "MODEL.IMAGE_SIZE is"),
    ):
        path.write_text(text)
        with pytest.raises(CheckpointError) as caught:
            read_backbone(path)
        assert word in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["dinov3", "vith"])
def test_weights_get_the_precision_that_the_release_computes_with(name):
    for key, (_, dtype) in read_manifest(name)["entries"].items():
        value = torch.zeros(1, dtype=getattr(torch, "int64" if dtype == "int64" else "float32"))
        assert str(checkpoint._in_precision(key, value, name).dtype) == f"torch.{dtype}", key
