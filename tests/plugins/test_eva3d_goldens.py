"""EVA3D against numbers of the original; the golden body and network are what the other tests of EVA3D use too."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from facednerf_eva3d.body import LinearBody
from facednerf_eva3d.boxes import posed_boxes, spans
from facednerf_eva3d.film import Films, FilmSiren
from facednerf_eva3d.network import Eva3dNetwork
from facednerf_eva3d.rays import camera_label, pinhole, pixel_rays
from facednerf_eva3d.stance import Stance
from safetensors.torch import load_file
from torch import Tensor

from tests.portable_tensors import tensors, values

GOLDEN_FOLDER = Path(__file__).parents[1] / "golden" / "eva3d"
GOLDEN = load_file(GOLDEN_FOLDER / "golden.safetensors")
FILM = load_file(GOLDEN_FOLDER / "golden_small_film.safetensors")
FACTS = json.loads((GOLDEN_FOLDER / "golden.json").read_text())
KEYS = json.loads((GOLDEN_FOLDER / "state_dict_keys.json").read_text())
SIZE = tuple(FACTS["res_HW"])
POSE = torch.cat([GOLDEN["theta"], GOLDEN["beta"], GOLDEN["trans"]], dim=1)  # (1, 85)
CAMERA = camera_label(GOLDEN["cam2world"][0], pinhole(float(GOLDEN["focal"]), SIZE), SIZE)  # (25,)
STYLE = GOLDEN["style_truncated_0.5"]

PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
MIDDLE = {0: (-0.22, 0.02), 3: (-0.11, -0.01), 6: (0.02, 0), 9: (0.08, 0.02), 12: (0.29, -0.01), 15: (0.36, 0.03)}
LEFT = {
    1: (0.07, -0.31, 0.01),
    4: (0.10, -0.69, 0.01),
    7: (0.09, -1.09, -0.03),
    10: (0.12, -1.15, 0.09),
    13: (0.08, 0.20, 0),
    16: (0.18, 0.22, -0.01),
    18: (0.43, 0.21, -0.03),
    20: (0.68, 0.22, -0.03),
    22: (0.76, 0.21, -0.04),
}


def golden_joints() -> np.ndarray:
    joints = np.zeros((24, 3))
    for joint, (y, z) in MIDDLE.items():
        joints[joint] = 0, y, z
    for joint, (x, y, z) in LEFT.items():
        joints[joint], joints[joint + 1] = (x, y, z), (-x, y, z)
    return joints


@cache
def golden_distances() -> Tensor:
    """Distances to capsules of 8 cm around the bones, (128, 128, 128)."""
    joints, axis = golden_joints(), np.linspace(-1.3, 1.3, 128)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    nearest = np.full(points.shape[:3], np.inf)
    for joint in range(1, 24):
        start, end = joints[PARENTS[joint]], joints[joint]
        bone, reach = end - start, points - start
        share = (reach @ bone / (bone @ bone)).clip(0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(reach - share[..., None] * bone, axis=-1))
    return torch.from_numpy((nearest - 0.08).astype(np.float32))


@cache
def golden_body() -> LinearBody:
    """Eight vertices around each joint, softly skinned; shape and pose corrections by formula."""
    tag, joints = FACTS["body_tag"], golden_joints()
    vertices = (joints[:, None] + 0.07 * values(f"{tag}.v", (24, 8, 3))).reshape(-1, 3)
    squares = ((vertices[:, None] - joints) ** 2).sum(axis=-1) / (2 * 0.05**2)
    weights = np.exp(squares.min(axis=1, keepdims=True) - squares)
    blends = tensors(
        {
            f"{tag}.shapedirs": {"shape": (192, 3, 10), "mul": 0.004, "add": 0},
            f"{tag}.posedirs": {"shape": (207, 576), "mul": 0.001, "add": 0},
        }
    )
    arrays = {
        "template": vertices,
        "shapedirs": blends[f"{tag}.shapedirs"],
        "posedirs": blends[f"{tag}.posedirs"],
        "joint_regressor": np.kron(np.eye(24), np.full((1, 8), 1 / 8)),
        "weights": weights / weights.sum(axis=1, keepdims=True),
    }
    made = {name: torch.from_numpy(value.astype(np.float32)) for name, value in arrays.items()}
    return LinearBody(**made, parents=torch.tensor(PARENTS), template_sdf=golden_distances())


@cache
def golden_tensors() -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in tensors(KEYS["network_keys"]).items()}


def golden_network(**config: object) -> Eva3dNetwork:
    given = {"N_samples": FACTS["N_samples"], "res_HW": FACTS["res_HW"], **config}
    return Eva3dNetwork.from_state_dict(golden_tensors(), **given)


def golden_stance() -> Stance:
    return Stance.of(golden_body(), POSE[0])


def tile(image: Tensor) -> Tensor:
    """(1, 1, C, H, W) as the original lays pictures out, (1, H, W, C)."""
    return image[0].permute(0, 2, 3, 1)


def cotangent() -> Tensor:
    return torch.from_numpy(values("eva3d.cot", (1, *SIZE, 3))).float()


def close(found: Tensor, name: str, atol: float) -> None:
    torch.testing.assert_close(found.reshape(GOLDEN[name].shape), GOLDEN[name], atol=atol, rtol=0)


def test_tensors_match_the_official_names_and_shapes_one_to_one():
    ours = {name: list(value.shape) for name, value in Eva3dNetwork(parts=KEYS["parts"]).state_dict().items()}
    assert ours == {name: entry["shape"] for name, entry in KEYS["network_keys"].items()}
    assert list(ours) == list(Eva3dNetwork().state_dict())
    assert sum(value.numel() for value in Eva3dNetwork().parameters()) == KEYS["n_params"]


def test_the_parts_are_those_of_the_table():
    assert golden_network(parts=KEYS["parts"]).parts == golden_network().parts


def test_styles():
    style = golden_network().style
    close(style(GOLDEN["z"]), "style", 1e-5)
    mean = style(torch.from_numpy(values("eva3d.zmean", (64, 128)) * 1.7).float()).mean(dim=0, keepdim=True)
    close(mean, "style_mean64", 1e-5)
    close(mean + 0.5 * (style(GOLDEN["z"]) - mean), "style_truncated_0.5", 1e-5)


def test_the_body_in_its_pose():
    stance = golden_stance()
    close(stance.joints, "rest_joints", 1e-6)
    close(stance.transforms, "rel_transforms", 1e-6)
    close(stance.vertices, "posed_vertices", 1e-6)
    turned = stance.transforms[:, :3, :3] @ stance.joints[:, :, None]
    close(turned[..., 0] + stance.transforms[:, :3, 3], "posed_joints", 1e-6)
    posed = golden_body().posed_vertices(GOLDEN["beta"][0], _rotations())
    close(posed, "posed_vertices", 1e-6)


def test_boxes_rays_and_hits():
    network, stance = golden_network(), golden_stance()
    boxes = posed_boxes(stance.joints, golden_body().parents, network.parts)
    close(boxes.low, "actual_boxes_min", 1e-6)
    close(boxes.high, "actual_boxes_max", 1e-6)
    origin, directions = pixel_rays(CAMERA, SIZE)
    close(directions / directions[:, 2:], "rays_d", 1e-6)
    hit = spans(origin, directions, stance, boxes, network.parts).hit
    assert torch.equal(hit, GOLDEN["hit_per_part"])
    assert torch.equal(hit.any(dim=0), GOLDEN["hit_any"])


def test_depths_and_canonical_points():
    network, stance = golden_network(), golden_stance()
    sight = network.see(golden_body(), stance, CAMERA)
    assert len(sight.rays) == FACTS["valid_rays"]
    close(sight.depths, "z_vals", 5e-5)
    points = (sight.origin + sight.directions[:, None] * sight.depths[:, :, None]).flatten(0, 1)
    for index in (1, 8, 9, 10, 13):
        found = stance.canonical(points - stance.translation, network.parts[index]).points
        on_ray = GOLDEN["hit_per_part"][index, sight.rays].float()
        close(found.view(-1, 12, 3) * on_ray[:, None, None], f"local_pts_part{index}", 5e-5)


@pytest.mark.parametrize("index", [0, 5, 8, 9])
def test_networks_of_parts(index):
    network = golden_network()
    x = torch.from_numpy(values("eva3d.mlp.x", (1, 64, 6)) * 0.5).float()
    close(network.networks[index](x, network.films(STYLE)[index]), f"part_mlp{index}/out_rgb_sdf", 1e-5)


def test_the_picture_and_what_comes_with_it():
    volume = golden_network()(STYLE, CAMERA[None, None], POSE[None], golden_body())
    close(tile(volume.image), "fixdir/rgb", 1e-4)
    close(volume.mask, "mask", 1e-4)
    close(volume.depth, "depth", 1e-4 * 10.8)
    close(tile(volume.xyz), "xyz", 1e-4 * 10.8)


def test_true_directions_of_view():
    volume = golden_network(fix_viewdir=False)(STYLE, CAMERA[None, None], POSE[None], golden_body())
    close(tile(volume.image), "raydir/rgb", 1e-4)


def test_the_template_alone():
    network = golden_network()
    depth, mask = network.template(network.see(golden_body(), golden_stance(), CAMERA))
    close(mask, "template_mask", 1e-4)
    assert depth.shape == (1, 1, 1, *SIZE)


def test_what_networks_add_to_the_template():
    network = golden_network()
    sight = network.see(golden_body(), golden_stance(), CAMERA)
    deltas = torch.cat(network.field([films.of(0) for films in network.films(STYLE)], sight.geometry).deltas)
    mean, deviation, count = FACTS["delta_sdf_stats"]
    assert len(deltas) == count
    assert deltas.mean().item() == pytest.approx(mean, abs=1e-6)
    assert deltas.std().item() == pytest.approx(deviation, abs=1e-6)


def test_the_gradient_with_respect_to_the_style():
    style = STYLE.clone().requires_grad_()
    image = golden_network()(style, CAMERA[None, None], POSE[None], golden_body()).image
    (tile(image) * cotangent()).sum().backward()
    assert (style.grad - GOLDEN["grad_style"]).norm() <= 5e-4 * GOLDEN["grad_style"].norm()


def test_float64_agrees_within_the_originals_own_float32():
    network = Eva3dNetwork.from_state_dict(
        {name: value.double() for name, value in golden_tensors().items()}, N_samples=12, res_HW=SIZE
    )
    body = golden_body().to(torch.float64)
    volume = network(STYLE.double(), CAMERA[None, None], POSE[None], body)
    assert volume.image.dtype == torch.float64
    torch.testing.assert_close(tile(volume.image).float(), GOLDEN["fixdir/rgb"], atol=1e-4, rtol=0)


def test_a_small_network_and_its_gradients():
    siren = FilmSiren(3, 12, 8)
    siren.load_state_dict({name[6:]: value for name, value in FILM.items() if name.startswith("param/")})
    style, x = FILM["style"].clone().requires_grad_(), FILM["x"].clone().requires_grad_()
    films = siren.films(style)
    torch.testing.assert_close(films.gamma, FILM["gamma"], atol=1e-5, rtol=0)
    torch.testing.assert_close(films.beta, FILM["beta"], atol=1e-6, rtol=0)
    y = siren(x, films)
    torch.testing.assert_close(y, FILM["y"], atol=1e-5, rtol=0)
    (y * FILM["cotangent"]).sum().backward()
    for name, found in (("grad_style", style.grad), ("grad_x", x.grad)):
        assert (found - FILM[name]).abs().max() <= 1e-4 * FILM[name].abs().max()
    given = siren(FILM["x"], Films(FILM["gamma"], FILM["beta"]))
    torch.testing.assert_close(given, FILM["y"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("dtype", "distance"), [(torch.bfloat16, 1.5e-2), (torch.float16, 2.5e-3)])
def test_half_precision_stays_near(dtype, distance):
    """Geometry and compositing stay in float32; only the products of hidden layers are halved."""
    with torch.autocast("cpu", dtype):
        volume = golden_network()(STYLE, CAMERA[None, None], POSE[None], golden_body())
    for found, name in ((tile(volume.image), "fixdir/rgb"), (volume.mask, "mask")):
        assert found.dtype == torch.float32
        assert found.isfinite().all()
        assert 1e-6 < (found.reshape(GOLDEN[name].shape) - GOLDEN[name]).abs().max() <= distance


def _rotations() -> Tensor:
    from facednerf_eva3d.body import rotation_matrices

    return rotation_matrices(GOLDEN["theta"][0])
