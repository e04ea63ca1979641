"""The network beyond the goldens: options, drives, portions, and what is refused."""

from __future__ import annotations

import pytest
import torch
from facednerf_eva3d import film, volume
from facednerf_eva3d.film import FilmSiren
from facednerf_eva3d.mapping import statistics
from facednerf_eva3d.network import Eva3dNetwork
from facednerf_eva3d.parts import PARTS
from facednerf_eva3d.volume import density, sample_weights, spread

from facednerf_core.errors import InputError
from tests.plugins.test_eva3d_goldens import CAMERA, GOLDEN, POSE, STYLE, golden_body, golden_network, golden_tensors

SCENE = (CAMERA[None, None], POSE[None], golden_body())


def test_buffers_of_smpl_are_dropped():
    official = golden_tensors() | {"renderer.smpl_model.v_template": torch.zeros(6890, 3)}
    network = Eva3dNetwork.from_state_dict(official)
    assert set(network.state_dict()) == set(golden_tensors())
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"renderer.sigmoid_beta": None}, "renderer.sigmoid_beta is missing"),
        ({"upsampler.weight": torch.zeros(1)}, "upsampler.weight is unknown"),
        ({"style.1.bias": torch.zeros(64)}, r"style.1.bias is \(64,\) instead of \(128,\)"),
    ],
)
def test_other_tensors_are_refused(change, words):
    tensors = {name: value for name, value in (golden_tensors() | change).items() if value is not None}
    with pytest.raises(InputError, match=words):
        Eva3dNetwork.from_state_dict(tensors)


def test_tensors_say_their_sizes():
    small = Eva3dNetwork(8, 12, n_mlp=2, depths=[2, *[1] * 15]).reset(torch.Generator().manual_seed(0))
    again = Eva3dNetwork.from_state_dict(small.state_dict(), N_samples=5, res_HW=(7, 3))
    assert again.num_ws == 33
    assert (again.style.style_dim, len(again.style), again.parts[0].depth, again.parts[1].depth) == (8, 2, 2, 1)
    released = Eva3dNetwork(is_aist=True).state_dict()
    assert Eva3dNetwork.from_state_dict(released).num_ws == 63
    with pytest.raises(InputError, match=r"vox_list.0.network.pts_linears.3.weight is missing"):
        Eva3dNetwork.from_state_dict(released, parts=PARTS)


@pytest.mark.parametrize("config", [{"N_samples": 1}, {"res_HW": (0, 4)}, {"width": 0}])
def test_arguments_that_describe_no_network_are_refused(config):
    with pytest.raises(InputError, match="N_samples"):
        Eva3dNetwork(**config)


def test_black_is_white_without_what_shows_through():
    white, black = (golden_network(white_bg=given)(STYLE, *SCENE) for given in (True, False))
    torch.testing.assert_close(white.image - 2 * (1 - white.mask), black.image, atol=1e-6, rtol=0)
    missed = ~GOLDEN["hit_any"].view(32, 16)
    assert (black.image[0, 0, :, missed] == -1).all()


def test_another_size_and_number_of_samples():
    coarse, fine = (golden_network(N_samples=count)(STYLE, *SCENE, size=(16, 8)) for count in (96, 192))
    assert fine.image.shape == (1, 1, 3, 16, 8)
    assert (coarse.image - fine.image).abs().mean() < 0.02
    once = golden_network(N_samples=96, res_HW=(16, 8))(STYLE, *SCENE)
    assert torch.equal(once.image, coarse.image)


def test_a_drive_of_ones_own_and_a_row_for_each_layer_equal_the_shared_style():
    network = golden_network()
    films = network.films(STYLE)
    for other in (network.films(STYLE[:, None]), network.films(STYLE[:, None].repeat(1, 68, 1))):
        for one, same in zip(films, other, strict=True):
            assert torch.equal(one.gamma, same.gamma)
            assert torch.equal(one.beta, same.beta)
    assert films[9].gamma.shape == (9, 1, 1, 128)
    changed = STYLE[:, None].repeat(1, 68, 1)
    changed[:, 5:9] += 1  # of the left upper leg
    moved = [not torch.equal(a.gamma, b.gamma) for a, b in zip(films, network.films(changed), strict=True)]
    assert moved == [index == 1 for index in range(16)]


@pytest.mark.parametrize("shape", [(1, 64), (1, 67, 128), (128,), (1, 1, 68, 128)])
def test_a_style_of_another_shape_is_refused(shape):
    with pytest.raises(InputError, match=r"\(N, 68, 128\)"):
        golden_network().films(torch.zeros(shape))


def test_portions_give_the_same_numbers_and_gradients(monkeypatch):
    siren = FilmSiren(2, 16, 8)
    siren.reset(torch.Generator().manual_seed(0))
    x = torch.rand(1, 50, 6, generator=torch.Generator().manual_seed(1)) - 0.5
    found = []
    for count in (50, 7):
        monkeypatch.setattr(film, "POINTS_AT_ONCE", count)
        style = torch.ones(1, 8, requires_grad=True)
        y = siren(x, siren.films(style))
        y.square().sum().backward()
        with torch.no_grad():
            torch.testing.assert_close(siren(x, siren.films(style)), y)
        found.append((y.detach(), style.grad))
    torch.testing.assert_close(found[0], found[1])


def test_starting_values_have_the_stated_spreads():
    network = Eva3dNetwork().reset(torch.Generator().manual_seed(0))
    head = network.networks[9]
    assert 0.32 < head.pts_linears[0].weight.abs().max() <= 1 / 3
    limit = (6 / 131) ** 0.5 / 25
    assert 0.99 * limit < head.views_linears.weight.abs().max() <= limit
    films = head.films(network.style(torch.randn(256, 128, generator=torch.Generator().manual_seed(1))))
    assert 25 < films.gamma.mean() < 35
    assert 1 < films.gamma.std() < 15


def test_statistics_are_those_of_styles():
    style = golden_network().style
    z = torch.randn(4000, 128, generator=torch.Generator().manual_seed(5))
    found = statistics(style)
    torch.testing.assert_close(found.mean, style(z).mean(dim=0), atol=0.1, rtol=0)
    torch.testing.assert_close(found.deviation, style(z).std(dim=0), atol=0.05, rtol=0.1)
    assert torch.equal(found.mean, statistics(style).mean)


def test_subjects_and_views_side_by_side():
    network = golden_network()
    other = CAMERA.clone()
    other[3] += 0.2
    styles = torch.cat([STYLE, GOLDEN["style"]])
    cameras, poses = torch.stack([CAMERA, other]).expand(2, 2, 25), POSE.expand(2, 2, 85)
    noise = torch.rand(2, 2, 512, 12, generator=torch.Generator().manual_seed(0))
    together = network(styles, cameras, poses, golden_body(), noise=noise)
    assert together.xyz.shape == (2, 2, 3, 32, 16)
    alone = network(styles[1:], cameras[1:, 1:], poses[1:, 1:], golden_body(), noise=noise[1:, 1:])
    torch.testing.assert_close(together.image[1:, 1:], alone.image, atol=1e-5, rtol=0)
    assert (together.image[0] - together.image[1]).abs().max() > 0.05


def test_density_is_a_logistic_in_the_distance_and_never_too_sharp():
    distance = torch.tensor([-1.0, 0.0, 0.01, 1.0])
    torch.testing.assert_close(density(distance, torch.tensor([0.02])), torch.sigmoid(-distance / 0.02) / 0.02)
    beta = torch.tensor([1e-4])
    torch.testing.assert_close(density(distance, beta), density(distance, torch.tensor([volume.SHARPEST])))
    assert beta.item() == pytest.approx(1e-4), "the parameter itself stays"


def test_weights_follow_the_recursion_of_rendering():
    depths = torch.tensor([[1.0, 1.5, 1.7, 2.7]])
    sigma = torch.tensor([[0.2, 3.0, 0.0, 1.5]])
    left, expected = 1.0, []
    for step, value in zip([0.5, 0.2, 1.0, 1.0], sigma[0].tolist(), strict=True):
        alpha = 1 - torch.exp(torch.tensor(-value * step)).item()
        expected.append(left * alpha)
        left *= 1 - alpha + 1e-10
    torch.testing.assert_close(sample_weights(depths, sigma)[0], torch.tensor(expected))


def test_values_are_spread_row_by_row():
    image = spread(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([1, 5]), (2, 3), 9.0)
    assert image[0].tolist() == [[9, 1, 9], [9, 9, 3]]
    assert image[1].tolist() == [[9, 2, 9], [9, 9, 4]]
