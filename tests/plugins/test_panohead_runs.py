"""`--backbone panohead` from photo to film, with a tiny random network on the cards that the starter's own will have."""

from __future__ import annotations

import json
import math
from typing import Any

import av
import facednerf_arcface.plugin
import facednerf_inverters.plugin
import facednerf_panohead.plugin
import facednerf_sds.plugin
import facednerf_starter.plugin as starter
import numpy as np
import pytest
import torch
from facednerf_panohead.generator import PanoHead
from facednerf_panohead.network import TriGridGenerator
from PIL import Image
from safetensors.torch import load_file, save_file

from facednerf_core import plans, plugins, runs
from facednerf_core.cards import WeightsCard
from facednerf_core.compute import rng
from facednerf_core.framing import Framing
from facednerf_core.loop import NEARBY, optimize
from facednerf_core.plugins import Origin, Shelves
from facednerf_core.recipe import Recipe
from facednerf_core.testing import GeneratorContract
from facednerf_core.views import Orbit
from facednerf_core.weights import Registry

CARD = "panohead/starter"
STEPS = {"invert": 3, "refine": 2, "tune": 4, "edit": 3}
ORBIT: dict[str, Any] = {**starter.ORBIT, "yaw": math.pi}
SIDE = 64
CONFIG: dict[str, Any] = {
    "z_dim": 24,
    "w_dim": 32,
    "img_resolution": SIDE,
    "channel_base": 256,
    "channel_max": 16,
    "plane_resolution": 32,
    "plane_features": 8,
    "decoder_hidden": 16,
    "neural_rendering_resolution": 16,
    "sr_input_resolution": 32,
    "sr_widths": [8, 4],
    "rendering_kwargs": {
        "superresolution_module": "SuperresolutionHybrid2X",
        "superresolution_noise_mode": "none",
        "c_gen_conditioning_zero": True,
        "decoder_activation": "sigmoid",
        "triplane_depth": 3,
        "depth_resolution": 8,
        "depth_resolution_importance": 6,
        "ray_start": 2.25,
        "ray_end": 3.3,
        "box_warp": 1,
        "white_back": True,
        "avg_camera_radius": 2.7,
        "avg_camera_pivot": [0, 0, 0.2],
    },
}


def network(seed: int = 0) -> TriGridGenerator:
    """A random network, denser than chance makes it, so that something stands there."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tensors = TriGridGenerator(**CONFIG).state_dict()
    tensors["decoder.net.2.bias"][0] += 2.0
    return TriGridGenerator.from_state_dict(tensors, **CONFIG)


def head() -> PanoHead:
    """The network as a generator on the starter's orbit, all round."""
    return PanoHead(network(), Orbit(**ORBIT))


class TestPanoHeadOnWhite(GeneratorContract):
    def make(self) -> PanoHead:
        return head()


@pytest.fixture(scope="module")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> Shelves:
    """Our plugins, and the tiny network under the card that the starter's trained one has."""
    folder = tmp_path_factory.mktemp("weights")
    tensors = {name: value.half() for name, value in network().state_dict().items()}
    save_file(tensors, folder / "panohead.safetensors")
    (folder / "panohead.json").write_text(json.dumps({"class": "facednerf_panohead.network.TriGridGenerator", **CONFIG}))
    found = Shelves(
        panohead=facednerf_panohead.plugin,
        sds=facednerf_sds.plugin,
        arcface=facednerf_arcface.plugin,
        inverters=facednerf_inverters.plugin,
        starter=starter,
    )
    assert not found.broken
    found.weights[CARD] = WeightsCard(
        CARD,
        "panohead",
        "generator",
        "starter",
        "A tiny random head.",
        domains=starter.DOMAINS,
        files={"tensors": "panohead.safetensors", "config": "panohead.json"},
        folder=folder,
        resolution=SIDE,
        provides=("depth", "mask", "density"),
        crop=starter.FRAMING,
        orbit=ORBIT,
        background="white",
    )
    found.origins["weights", CARD] = Origin("starter")
    return found


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    from skimage.data import astronaut

    photo = tmp_path_factory.mktemp("photos") / "astronaut.png"
    Image.fromarray(astronaut()[:260, 90:350]).save(photo)
    return Recipe(
        photo=str(photo), prompt="a woman with blue hair", backbone="panohead", steps=STEPS, frames=8, size=32, device="cpu"
    )


@pytest.fixture(scope="module")
def prepared(recipe: Recipe, shelves: Shelves) -> runs.Prepared:
    return runs.prepare(recipe, shelves=shelves)


@pytest.fixture(scope="module")
def finished(recipe: Recipe, shelves: Shelves, tmp_path_factory: pytest.TempPathFactory) -> runs.Run:
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "installed", lambda: shelves)
        return runs.execute(recipe, out=folder)


def test_the_starters_pack_serves_it_whole(recipe: Recipe, shelves: Shelves) -> None:
    plan = plans.plan(recipe, shelves, Registry(shelves.weights))
    assert plan.pack == "starter"
    assert plan.scene.name == CARD
    assert {kind: part.weights.card.name for kind, part in plan.parts().items() if part.weights} == {
        "generator": CARD,
        "detector": "starter/detector",
        "guidance": "sds/starter",
        "identity": "arcface/starter",
    }
    assert plan.perceptual.card.name == "vgg16/starter"
    assert not plan.notes
    assert plan.source_prompt == "a person"


def test_the_photo_is_framed_as_the_card_says(prepared: runs.Prepared) -> None:
    portrait, generator = prepared.portrait, prepared.built.generator
    assert generator.orbit.all_round
    assert portrait.image.shape == (1, 1, 3, SIDE, SIDE)
    framing = Framing.of(prepared.plan.scene.crop)
    assert framing is not None
    assert portrait.landmarks is not None
    away = np.abs(portrait.landmarks[0, 0, :5].numpy() - framing.seen(portrait.camera))
    assert away.max() < 0.06
    assert abs(portrait.yaw) < 0.6


def test_every_term_is_there_and_moves_what_its_stage_solves_for(prepared: runs.Prepared) -> None:
    stages = {stage.name: {term.name for term in stage.terms} for stage in prepared.problem.stages}
    assert {"reconstruction", "identity", "silhouette", "latent"} <= stages["invert"]
    assert {"reconstruction", "locality"} <= stages["tune"]
    assert {"guidance", "reconstruction", "identity", "latent"} == stages["edit"]
    steps = list(optimize(prepared.problem))
    assert [(step.stage, step.index) for step in steps] == [(name, i) for name, n in STEPS.items() for i in range(n)]
    seen = {(step.stage, step.index): step.losses for step in steps}
    assert all(math.isfinite(value) for losses in seen.values() for value in losses.values())
    assert all(seen["invert", 0][name] > 0 for name in ("reconstruction", "identity", "silhouette"))
    assert seen["tune", 0]["locality"] == pytest.approx(0, abs=1e-6), "nothing has been tuned yet"
    watched = [seen["tune", index].get("locality", 0.0) for index in range(1, STEPS["tune"])]
    assert max(watched) > 1e-6, "and now the neighbourhood is watched"
    assert seen["edit", 2]["guidance"] != 0
    tuned, base = steps[-1].state.weights, prepared.built.generator.tunable()
    assert set(tuned) == set(base)
    still = {name for name, value in tuned.items() if torch.equal(value, base[name])}
    assert all("noise_strength" in name for name in still), "the super-resolution takes no noise; all else moves"
    before = next(step.state for step in steps if step.stage == "edit")
    assert not torch.equal(steps[-1].state.offset, before.offset)
    deviation = prepared.built.generator.deviation()
    assert deviation.shape == (CONFIG["w_dim"],)
    assert (deviation > 0).all()


def test_the_neighbourhood_of_tuning_lies_between_heads(prepared: runs.Prepared) -> None:
    """What `nearby` renders is neither the photo's head nor a random one, and is a head that density can be asked of."""
    generator = prepared.built.generator
    mean, other = generator.mean(), generator.sample(rng(0, "nearby"))
    near = mean.with_w(mean.w.lerp(other.w, NEARBY))
    view = generator.orbit.view((0.3, 0.0), (math.pi, 0.0))
    shots = [generator.render(generator.synthesize(latent), view, jitter=None) for latent in (mean, near, other)]
    apart = [float((shots[1].image - shot.image).square().mean()) for shot in (shots[0], shots[2])]
    assert 0 < apart[0] < apart[1]
    density = generator.density(shots[1].scene, torch.zeros(1, 1, 3), view)
    assert density.shape == (1, 1)
    assert float(density) > 0


def test_an_edit_leaves_a_run_with_a_film_all_round(finished: runs.Run) -> None:
    assert finished.manifest["status"] == "finished"
    assert finished.manifest["pack"] == "starter"
    assert CARD in finished.manifest["weights"]
    assert finished.pictures == ("after", "before", "comparison", "inverted", "sheet")
    assert finished.after.size == (SIDE, SIDE)
    with av.open(str(finished.folder / "turntable.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24").astype(float) for frame in film.decode(video=0)]
    assert len(frames) == 8
    assert min(np.abs(frames[0] - frame).mean() for frame in frames[1:]) > 0.5, "no frame shows what the first does"
    tuned = load_file(finished.folder / "tuned.safetensors")
    assert set(tuned) == set(head().tunable())


def test_where_no_head_stands_it_draws_the_white_that_its_card_says() -> None:
    """So that the photo's background can take its place."""
    base = head()
    empty = base.tuned({"decoder.net.2.bias": base.tunable()["decoder.net.2.bias"] - 100.0}).network
    w = base.mean().w
    composed = empty.render(empty.grids(w), base.orbit.view((0.0, 0.0), (math.pi, 0.0)).camera, w)
    assert composed.alpha.max() < 1e-6
    torch.testing.assert_close(composed.raw, torch.ones(1, 2, 3, 16, 16), atol=1e-5, rtol=0)


def test_a_finished_run_is_weakened_afterwards(
    finished: runs.Run, shelves: Shelves, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "installed", lambda: shelves)
    whole = load_file(finished.folder / "latent.safetensors")
    half = load_file(runs.resume(finished.folder, strength=0.5).folder / "latent.safetensors")
    assert torch.allclose(half["w"], whole["inverted.w"].lerp(whole["edited.w"], 0.5), atol=1e-5)
