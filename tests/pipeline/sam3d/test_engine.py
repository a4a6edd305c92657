import numpy as np
import pytest
import torch

from pipeline.sam3d.crops import BODY_PADDING, crop_images, crops_of_boxes
from pipeline.sam3d.engine import Sam3dEngine
from pipeline.sam3d.prompt_encoder import NO_PROMPT
from tests.pipeline.sam3d.conftest import BOXES, K


@pytest.fixture(scope="module")
def frames():
    random = np.random.default_rng(3)
    sizes = ((96, 128), (96, 128), (120, 100))
    return [random.integers(0, 255, (*size, 3), np.uint8) for size in sizes]


@pytest.fixture(scope="module")
def skin():
    random = np.random.default_rng(0)
    shares = random.dirichlet((1, 1, 1), 7).astype(np.float32)
    return random.integers(0, 18439, (7, 3)), shares


@pytest.fixture(scope="module")
def engine(network, skin):
    return Sam3dEngine(network, skin=skin)


def ask(engine, frames, numbers, rows=slice(None)):
    intrinsics = np.repeat(K[None], len(BOXES), 0)
    return engine(frames, numbers[rows], BOXES[rows], intrinsics[rows])


def test_it_answers_what_the_network_says(engine, network, frames):
    people = ask(engine, frames, [0, 1, 1])
    intrinsics = torch.from_numpy(np.repeat(K[None], 3, 0))
    crops = crops_of_boxes(torch.from_numpy(BOXES), intrinsics, network.config.side, BODY_PADDING)
    images = torch.from_numpy(np.stack(frames[:2]))
    pixels = crop_images(images, torch.tensor([0, 1, 1]), crops)
    with torch.inference_mode():
        body = network.decode(network.look(network.features(pixels), crops))
        vertices = network.vertices(body).numpy()
    np.testing.assert_allclose(people.keypoints_m, body.keypoints_m.numpy(), atol=1e-6)
    np.testing.assert_allclose(people.translation_m, body.translation_m.numpy(), atol=1e-6)
    np.testing.assert_allclose(engine.vertices(people), vertices, atol=1e-6)


def test_points_of_the_skin_are_those_of_the_mesh(engine, frames, skin):
    people = ask(engine, frames, [0, 1, 1])
    vertices, shares = skin
    expected = np.einsum("bskc,sk->bsc", engine.vertices(people)[:, vertices], shares)
    np.testing.assert_allclose(people.surface_m, expected, atol=1e-5)


def test_a_person_does_not_depend_on_the_others(engine, frames):
    together = ask(engine, frames, [0, 2, 1])
    for k in range(3):
        alone = ask(engine, frames, [0, 2, 1], slice(k, k + 1))
        np.testing.assert_allclose(together.rows(slice(k, k + 1)).pose, alone.pose, atol=2e-5)


def test_turns_of_joints_are_rotations(engine, frames):
    turns = ask(engine, frames, [0, 1, 2]).joint_rotations
    np.testing.assert_allclose(
        turns @ turns.swapaxes(-1, -2), np.broadcast_to(np.eye(3), turns.shape), atol=1e-5
    )
    # The camera's axes are the rig's with two of them turned round: a rotation by half a turn.
    np.testing.assert_allclose(np.linalg.det(turns), 1, atol=1e-5)


def test_hands_change_hands(network, frames, engine):
    with_hands = ask(Sam3dEngine(network, hands=True), frames, [0, 1, 1])
    without = ask(engine, frames, [0, 1, 1])
    assert with_hands.surface_m.shape == (3, 0, 3)
    assert np.isfinite(with_hands.parameters).all()
    assert not np.array_equal(with_hands.pose, without.pose)


def test_neighbours_are_decoded_again_from_the_same_crop(engine, network, frames):
    points = np.random.default_rng(1).uniform(10, 80, (3, 2, 4, 2)).astype(np.float32)
    labels = np.array([[[41, 62, 7, NO_PROMPT], [8, 13, 14, 10]]] * 3)
    intrinsics = np.repeat(K[None], 3, 0)
    people = engine.with_neighbours(frames, [0, 1, 1], BOXES, intrinsics, points, labels)
    alone = engine(frames, [0, 1, 1], BOXES, intrinsics)
    np.testing.assert_allclose(people.rows(slice(0, None, 3)).pose, alone.pose, atol=2e-5)
    # The second person's first neighbour, by hand.
    crops = crops_of_boxes(
        torch.from_numpy(BOXES[1:2]), torch.from_numpy(K[None]), network.config.side, BODY_PADDING
    )
    image = torch.from_numpy(frames[1])[None]
    with torch.inference_mode():
        looked = network.look(network.features(crop_images(image, torch.tensor([0]), crops)), crops)
        places = crops.from_image(torch.from_numpy(points[1, 0])[None]) / crops.side
        kinds = torch.from_numpy(labels[1, 0]).float()[None, :, None]
        # What is prompted beyond the crop is no prompt.
        inside = ((places >= 0) & (places <= 1)).all(-1, keepdim=True)
        assert 0 < int(inside.sum()) < 4
        kinds = torch.where(inside, kinds, NO_PROMPT)
        body = network.decode(looked, torch.cat([places, kinds], -1), network.decode(looked))
    np.testing.assert_allclose(people.pose[4], body.pose[0].numpy(), atol=2e-5)
    assert np.abs(people.pose[4] - people.pose[3]).max() > 1e-3


def test_neighbours_without_prompts_are_not_the_first_pass(engine, frames):
    """A second pass starts from the first one's estimate, so it may differ, but stays finite."""
    points, labels = np.zeros((1, 3, 4, 2), np.float32), np.full((1, 3, 4), NO_PROMPT)
    people = engine.with_neighbours(frames, [0], BOXES[:1], K[None], points, labels)
    assert len(people) == 4
    assert np.isfinite(people.keypoints_m).all()
    np.testing.assert_allclose(people.pose[1], people.pose[3], atol=1e-6)
