import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from pipeline.sam3d.config import DINOV3, VITH
from pipeline.sam3d.crops import (
    BODY_PADDING,
    Crops,
    cell_centres,
    crop_images,
    crops_of_boxes,
    normalise,
    ray_features,
)
from tests.pipeline.sam3d.conftest import PASSES
from tests.pipeline.sam3d.golden_rule import TINY


def camera(focal: float = 900.0) -> torch.Tensor:
    return torch.tensor([[[focal, 0, 320], [0, focal, 240], [0, 0, 1]]])


@pytest.mark.parametrize("name", PASSES)
def test_crops_are_the_originals(golden, image, crops, name):
    affine = golden[f"{name}/affine"]
    torch.testing.assert_close(crops[name].scales, affine[:, 0, 0])
    origin = crops[name].from_image(torch.zeros(2, 1, 2))[:, 0]
    torch.testing.assert_close(origin, affine[:, :, 2])
    pixels = crop_images(image, torch.zeros(2, dtype=torch.long), crops[name])
    difference = (pixels - golden[f"{name}/crop"]).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 1e-3


@settings(max_examples=30, deadline=None)
@given(
    x=st.floats(-60, 200), y=st.floats(-60, 200), height=st.floats(5, 300), seed=st.integers(0, 99)
)
def test_pixels_are_those_of_warp_affine(x, y, height, seed):
    frame = np.random.default_rng(seed).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    crops = crops_of_boxes(
        torch.tensor([[x, y, x + height / 2, y + height]]), camera(), 64, BODY_PADDING
    )
    scale = float(crops.scales)
    shift = crops.from_image(torch.zeros(1, 1, 2))[0, 0].tolist()
    affine = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    expected = cv2.warpAffine(frame, affine, (64, 64), flags=cv2.INTER_LINEAR)
    actual = crop_images(torch.from_numpy(frame)[None], torch.zeros(1, dtype=torch.long), crops)
    difference = np.abs(actual[0].permute(1, 2, 0).numpy() - expected)
    # OpenCV may round places to 1/32 pixel, depending on its version.
    assert difference.max() <= 255 * 2 / 64 + 1
    assert np.median(difference) == 0


def test_each_crop_is_of_its_own_image():
    frames = torch.stack([torch.full((40, 50, 3), value, dtype=torch.uint8) for value in (9, 99)])
    crops = crops_of_boxes(
        torch.tensor([[20.0, 10, 30, 30]]).repeat(2, 1), camera().repeat(2, 1, 1), 16, BODY_PADDING
    )
    pixels = crop_images(frames, torch.tensor([1, 0]), crops)
    assert pixels[0].unique().tolist() == [99]
    assert pixels[1].unique().tolist() == [9]


@pytest.mark.parametrize("config", [DINOV3, VITH, TINY])
def test_rays_are_those_of_every_pixel_shrunk(config):
    crops = crops_of_boxes(torch.tensor([[100.0, 50, 220, 350]]), camera(), config.side, 1.25)
    grid = torch.arange(config.side, dtype=torch.float32)
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    image = crops.to_image(torch.stack([x, y], dim=-1).flatten(0, 1)[None])[0]
    plane = (image - camera()[0, :2, 2]) / camera()[0, 0, 0]
    first, end = config.first_column, config.first_column + config.columns
    square = plane.T.unflatten(1, (config.side, config.side))[None]
    # Cut to the backbone's columns first: the filter ends at their rim.
    expected = F.interpolate(
        square[..., first * config.patch : end * config.patch],
        size=(config.rows, config.columns),
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )
    actual = ray_features(crops, cell_centres(config), config)
    assert actual.shape == (1, 99, config.rows, config.columns)
    torch.testing.assert_close(actual[:, :2], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("config", "columns"),
    [(DINOV3, [9.0268, 23.5, 501.9732]), (VITH, [73.0268, 87.5, 437.9732])],
    ids=["dinov3", "vith"],
)
def test_cells_at_the_rim_are_moved_inwards(config, columns):
    centres = cell_centres(config).unflatten(0, (config.rows, config.columns))
    assert centres[0, [0, 1, -1], 0].tolist() == pytest.approx(columns, abs=1e-4)
    assert centres[[0, 1, -1], 0, 1].tolist() == pytest.approx([9.0268, 23.5, 501.9732], abs=1e-4)


def test_input_of_the_narrow_backbone_is_the_middle_of_the_square():
    pixels = torch.arange(512.0).expand(1, 3, 512, 512)
    wide, narrow = normalise(pixels, DINOV3), normalise(pixels, VITH)
    torch.testing.assert_close(narrow, wide[..., 64:448])


def test_moving_crop_and_centre_together_changes_nothing():
    boxes = torch.tensor([[100.0, 50, 220, 350]])
    moved = camera()
    moved[:, 0, 2] += 7
    moved[:, 1, 2] -= 5
    one = crops_of_boxes(boxes, camera(), 512, BODY_PADDING)
    other = crops_of_boxes(boxes + torch.tensor([7.0, -5, 7, -5]), moved, 512, BODY_PADDING)
    guess = torch.tensor([[-1.1, 0.02, -0.03]])
    torch.testing.assert_close(
        ray_features(one, cell_centres(DINOV3), DINOV3),
        ray_features(other, cell_centres(DINOV3), DINOV3),
    )
    torch.testing.assert_close(one.condition(), other.condition())
    torch.testing.assert_close(
        one.camera_translation(guess, 1.0), other.camera_translation(guess, 1.0)
    )


def test_image_pixels_and_back():
    crops: Crops = crops_of_boxes(torch.tensor([[9.0, 3, 40, 99]]), camera(), 512, BODY_PADDING)
    points = torch.tensor([[[0.0, 0], [511, 3], [256, 256]]])
    torch.testing.assert_close(crops.from_image(crops.to_image(points)), points)
    torch.testing.assert_close(crops.to_image(points[:, 2:])[:, 0], crops.centres)


@pytest.mark.parametrize(("mirrored", "padding"), [(False, 0), (True, 2)])
def test_the_kernel_cuts_as_torch_does(mirrored, padding):
    # Imported here: conftest sets TRITON_INTERPRET before a kernel is defined.
    from pipeline.sam3d.kernels_gpu import crop_patches

    device = "cuda" if torch.cuda.is_available() else "cpu"
    random = np.random.default_rng(4)
    pictures = [
        torch.from_numpy(random.integers(0, 255, (*size, 3), np.uint8)).to(device)
        for size in ((50, 70), (90, 40))
    ]
    boxes = torch.tensor([[3.3, 4, 40, 45], [-9, 20.5, 30, 99]], device=device)
    crops = crops_of_boxes(boxes, torch.eye(3, device=device).expand(2, 3, 3), TINY.side, 1.25)
    table = torch.tensor(
        [[each.data_ptr(), *each.shape[:2], mirrored] for each in pictures], device=device
    )
    expected = [
        crop_images(
            (each.flip(1) if mirrored else each)[None], torch.tensor([0], device=device), crop
        )
        for each, crop in zip(pictures, crops.singles())
    ]
    found = crop_patches(table, crops, TINY, padding, torch.float32)
    images = normalise(torch.cat(expected), TINY)
    patches = F.unfold(images, TINY.patch, stride=TINY.patch, padding=padding).transpose(1, 2)
    differs = (found - patches[:, : found.shape[1]]).abs().cpu()
    # A GPU may round a pixel the other way: one step of 256, in parts of the deviation.
    assert float(differs.max()) < 1 / 255 / 0.22
    assert float((differs > 1e-5).float().mean()) < 1e-3
