import pytest
import torch

from pipeline.sam3d.crops import BODY_PADDING, crop_images, crops_of_boxes
from pipeline.sam3d.hands import HandLimits, with_hands
from tests.support.tensors import NoHostLook, close

NUMBERS = torch.zeros(2, dtype=torch.long)


@pytest.fixture(scope="module")
def large(image):
    return image.repeat_interleave(10, 1).repeat_interleave(10, 2)


NUMBERS_OF_HANDS = torch.tensor([0, 0, 1, 1])
WIDTHS = torch.tensor([1280, 1280])


def joined_with_hands(network, picture, looked, body, *limits):
    def look(crops):
        pictures = torch.cat([picture.flip(2), picture])
        return network.features(crop_images(pictures, NUMBERS_OF_HANDS, crops))

    return with_hands(network, looked, body, WIDTHS, look, *limits)


@pytest.fixture(scope="module")
def body(vith, golden, large):
    """The body's features and its first pass."""
    intrinsics = torch.tensor([[1600.0, 0, 640], [0, 1600, 480], [0, 0, 1]]).expand(2, 3, 3)
    crops = crops_of_boxes(golden["boxes"] * 10, intrinsics, vith.config.side, BODY_PADDING)
    looked = vith.look(vith.features(crop_images(large, NUMBERS, crops)), crops)
    return looked, vith.decode(looked)


@pytest.mark.parametrize(("name", "bent_rad"), [("two_hands", 4.0), ("some_hands", 2.1)])
def test_bodies_get_the_hands_of_the_original(vith, large, body, golden_vith, name, bent_rad):
    limits = HandLimits(bent_rad=bent_rad, spread=1e4, apart=1e4)
    joined = joined_with_hands(vith, large, *body, limits)
    # A few pixels of the three crops are rounded the other way than the original's.
    close(vith.vertices(joined)[:, ::97], golden_vith[f"{name}/vertices"], 1e-4)
    close(joined.keypoints_m, golden_vith[f"{name}/pred_keypoints_3d"], 1e-4)
    close(joined.translation_m, golden_vith[f"{name}/pred_cam_t"], 1e-4)
    close(joined.parameters.rig, golden_vith[f"{name}/mhr_model_params"], 2e-3)


def test_hands_that_do_not_agree_leave_the_bodys(vith, large, body):
    joined = joined_with_hands(vith, large, *body, HandLimits(side_px=1e6))
    none = torch.tensor([0.0, 0, -2]).expand(2, 4, 3)
    second = vith.decode(body[0], none, body[1])
    close(joined.parameters.rig, second.parameters.rig, 1e-6)
    close(joined.keypoints_m, second.keypoints_m, 1e-6)


def test_nothing_looks_at_a_value(vith, large, body):
    with NoHostLook():
        joined_with_hands(vith, large, *body)
