"""The recipes of the generator, the identity, the detector, the perceptual features, the judges and the light, tiny."""

from __future__ import annotations

import argparse
import json
from functools import partialmethod
from importlib import import_module
from pathlib import Path

import pytest
import torch
from facednerf_arcface.iresnet import IResNet
from facednerf_eg3d.network import TriPlaneGenerator
from facednerf_starter.detector.network import FaceReader, expectation
from facednerf_starter.train import draws, identity, warps
from facednerf_starter.train.__main__ import main
from facednerf_starter.train.detector import disguised, roll
from facednerf_starter.train.generator import disturbance, disturbed, fitted
from facednerf_starter.train.identity import aligned, person_directions
from facednerf_starter.train.mapping import LABEL_DIM, Design, Readout, built, give, taught, told
from facednerf_starter.train.pieces import Piece
from facednerf_starter.train.recognition import told_apart
from facednerf_starter.train.shards import Shards
from facednerf_starter.train.sights import SightReader
from facednerf_starter.train.sitters import PairReader
from facednerf_starter.world.attributes import VECTOR, Z_DIM
from facednerf_starter.world.cameras import look
from facednerf_starter.world.landmarks import LANDMARKS
from safetensors.torch import load_file

from facednerf_core import perceptual, statedicts
from facednerf_core.errors import InputError
from facednerf_core.views import Orbit

RECIPES = ("generator", "identity", "detector", "perceptual", "judges", "light")


@pytest.fixture(scope="module")
def results(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """By recipe, the folder of a run in one piece and of the same run in two."""
    root = tmp_path_factory.mktemp("runs")
    return {name: (train(name, data, root / name), train(name, data, root / f"{name}-2", pieces=2)) for name in RECIPES}


def train(name: str, data: Path, out: Path, pieces: int = 1, *more: str) -> Path:
    module = import_module(f"facednerf_starter.train.{name}")
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    words = ["--data", str(data), "--out", str(out), "--device", "cpu", "--steps", "4", "--batch", "4"]
    args = parser.parse_args([*words, "--held", "3", "--tiny", *more])
    with pytest.MonkeyPatch.context() as patch:
        if pieces > 1:
            patch.setattr(Piece, "run", partialmethod(Piece.run, at_most=4 // pieces))
        for _ in range(pieces):
            module.run(args)
    return out


@pytest.mark.parametrize("name", RECIPES)
def test_a_resumed_run_equals_an_uninterrupted_one(results: dict[str, tuple[Path, Path]], name: str) -> None:
    whole, halves = (load_file(folder / f"{name}.safetensors") for folder in results[name])
    assert whole.keys() == halves.keys()
    assert all(torch.equal(whole[key], halves[key]) for key in whole)


@pytest.mark.parametrize("name", RECIPES)
def test_half_precision_and_a_card_are_left_behind(results: dict[str, tuple[Path, Path]], name: str) -> None:
    folder = results[name][0]
    tensors = load_file(folder / f"{name}.safetensors")
    packed = {key for key, value in tensors.items() if value.ndim == 4} if name == "generator" else set()
    assert {value.dtype for key, value in tensors.items() if key not in packed} <= {torch.float16, torch.int64}
    assert all(tensors[key].dtype == torch.int8 and key + statedicts.SCALE in tensors for key in packed)
    assert bool(packed) == (name == "generator")
    card = json.loads((folder / f"{name}.card.json").read_text())
    assert card["steps"] == 4
    assert card["finished"]
    assert card["data"]["held_out_heads"] == 2
    assert card["measured_on_held_out_heads"]
    assert card["limits"]
    assert not [path for path in folder.iterdir() if path.suffix in (".pt", ".pkl", ".part")]


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_that_is_closed_early_leaves_its_file_and_says_so(data: Path, tmp_path: Path, name: str) -> None:
    train(name, data, tmp_path, 1, "--minutes", "0")
    assert not (tmp_path / f"{name}.safetensors").exists()
    train(name, data, tmp_path, 1, "--minutes", "0", "--close")
    assert load_file(tmp_path / f"{name}.safetensors")
    assert not json.loads((tmp_path / f"{name}.card.json").read_text())["finished"]


def test_a_generators_card_says_what_its_training_began_with(
    data: Path, results: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    earlier = results["generator"][0]
    folder = train("generator", data, tmp_path, 1, "--start", str(earlier / "generator.safetensors"))
    begun = json.loads((folder / "generator.card.json").read_text())["begun_with"]
    before = json.loads((earlier / "generator.card.json").read_text())
    assert begun == {name: before[name] for name in ("steps", "seconds", "hardware")} | {"heads": before["data"]["heads"]}
    assert "begun_with" not in before


@pytest.fixture(scope="module")
def mappings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of the recipe `mapping`, W learned and W designed."""
    root = tmp_path_factory.mktemp("mappings")
    words = ["--tiny", "--device", "cpu", "--steps", "150", "--batch", "256"]
    for name, more in (("learned", []), ("designed", ["--designed"])):
        main(["mapping", "--out", str(root / name), *words, *more])
    return {name: root / name / "mapping.safetensors" for name in ("learned", "designed")}


@pytest.mark.parametrize("name", ["learned", "designed"])
def test_a_taught_mapping_tells_the_attributes_of_draws_that_it_never_saw(mappings: dict[str, Path], name: str) -> None:
    tensors, reader, about = taught(mappings[name])
    assert about["designed"] == (name == "designed")
    w_of, read = built(32, about["layers"]), (Design if about["designed"] else Readout)(32, 1, torch.device("cpu"))
    w_of.load_state_dict(tensors)
    read.load_state_dict(reader)
    z = draws.normal((512, Z_DIM), draws.key(77, "fresh"))
    label = torch.zeros(512, LABEL_DIM)
    with torch.no_grad():
        untaught = read.loss(built(32, about["layers"]).row(z, label), told(z))
        assert read.loss(w_of.row(z, label), told(z)) < 0.7 * untaught


def test_a_designed_w_is_the_attributes_under_a_lift_that_loses_nothing() -> None:
    design = Design(256, 1, torch.device("cpu"))
    heads = told(draws.normal((64, Z_DIM), draws.key(78, "fresh")))
    w = design(heads)
    assert torch.allclose(w @ design.lift * design.deviation + design.mean, heads, atol=1e-3)
    assert torch.equal(design.rows(heads, 3)[:, 2], w)
    moved = w + torch.linalg.qr(torch.cat([design.lift, torch.randn(256, 98)], 1)).Q[:, -1]  # where no attribute is
    assert design.errors(moved, heads).max() < 1e-6
    assert design.loss(moved, heads) > 1e-3  # the fit must not leave w there


def test_the_generator_begins_with_the_mapping_it_is_given(data: Path, mappings: dict[str, Path], tmp_path: Path) -> None:
    folder = train("generator", data, tmp_path / "g", 1, "--mapping", str(mappings["designed"]))
    tensors = load_file(folder / "generator.safetensors")
    given, _, about = taught(mappings["designed"])
    for name in ("fc0.weight", "fc3.bias"):  # where W is designed, only that recipe moves it
        assert torch.allclose(tensors[f"backbone.mapping.{name}"].float(), given[name], rtol=1e-3)
    card = json.loads((folder / "generator.card.json").read_text())
    assert card["about"].startswith("W was designed")
    assert card["settings"]["mapping"] == about
    more = ["--tiny", "--device", "cpu", "--designed", "--steps", "3", "--batch", "64", "--start", str(mappings["designed"])]
    main(["mapping", "--out", str(tmp_path / "m"), *more, "--into", str(folder / "generator.safetensors")])
    again, _, about = taught(tmp_path / "m" / "mapping.safetensors")
    replaced = load_file(folder / "generator.safetensors")
    assert torch.allclose(replaced["backbone.mapping.fc0.weight"].float(), again["fc0.weight"], rtol=1e-3)
    assert not torch.equal(replaced["backbone.mapping.fc0.weight"], tensors["backbone.mapping.fc0.weight"])
    assert json.loads((folder / "generator.card.json").read_text())["settings"]["mapping"] == about
    before = (folder / "generator.safetensors").read_bytes()
    with pytest.raises(InputError, match="their designed W differ"):
        give(folder / "generator.safetensors", built(32, about["layers"]), about | {"seed": about["seed"] + 1})
    assert (folder / "generator.safetensors").read_bytes() == before
    learned = train("generator", data, tmp_path / "l", 1, "--mapping", str(mappings["learned"]))
    assert json.loads((learned / "generator.card.json").read_text())["about"].startswith("W was learned")
    moved = load_file(learned / "generator.safetensors")["backbone.mapping.fc0.weight"].float()
    assert not torch.allclose(moved, taught(mappings["learned"])[0]["fc0.weight"], rtol=1e-3)


def test_a_generator_that_goes_on_in_a_designed_w_keeps_the_record_of_its_mapping(
    data: Path, mappings: dict[str, Path], tmp_path: Path
) -> None:
    earlier = train("generator", data, tmp_path / "a", 1, "--mapping", str(mappings["designed"])) / "generator.safetensors"
    about = taught(mappings["designed"])[2]
    assert fitted(earlier, about["seed"]) == about
    with pytest.raises(InputError, match="designed by seed"):
        fitted(earlier, about["seed"] + 1)
    words = ("--designed", "--layers", "7", "--start", str(earlier))  # the mapping's own layers count, not those asked for
    folder = train("generator", data, tmp_path / "b", 1, *words)
    card = json.loads((folder / "generator.card.json").read_text())
    assert card["settings"]["mapping"] == about
    assert card["about"].startswith("W was designed")
    before, after = (load_file(path) for path in (earlier, folder / "generator.safetensors"))
    assert torch.equal(before["backbone.mapping.fc3.bias"], after["backbone.mapping.fc3.bias"])
    assert not torch.equal(before["decoder.net.0.weight"], after["decoder.net.0.weight"])


def test_a_learned_w_is_no_start_for_a_designed_one(
    data: Path, results: dict[str, tuple[Path, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learned = results["generator"][0] / "generator.safetensors"
    with pytest.raises(InputError, match="was learned"):
        fitted(learned, 1)
    words = ["--data", str(data), "--out", str(tmp_path / "out"), "--device", "cpu", "--held", "3", "--tiny"]
    with pytest.raises(SystemExit) as ended:
        main(["generator", *words, "--designed", "--start", str(learned)])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "leave --designed out" in line
    assert not (tmp_path / "out").exists()


def config_of(folder: Path, name: str) -> dict[str, object]:
    config = json.loads((folder / f"{name}.json").read_text())
    assert config.pop("class")
    return config


def test_the_generator_loads_by_its_files(results: dict[str, tuple[Path, Path]]) -> None:
    folder = results["generator"][0]
    tensors = statedicts.read(folder / "generator.safetensors")
    network = TriPlaneGenerator.from_state_dict(tensors, **config_of(folder, "generator"))
    ws = network.mapping(torch.randn(1, network.backbone.mapping.z_dim), torch.zeros(1, 25))
    image, volume = network(ws, Orbit().view((0.0, 0.0)).camera)
    assert image.shape == (1, 1, 3, 64, 64)
    assert volume.alpha.shape == (1, 1, 1, 32, 32)
    assert tensors["backbone.mapping.w_avg"].abs().sum() > 0
    noise = tensors["backbone.synthesis.b32.conv1.noise_const"]
    assert noise.square().mean().sqrt() == pytest.approx(1, abs=0.01)  # learned, then brought to unit deviation


def test_the_other_networks_load_by_their_files(results: dict[str, tuple[Path, Path]]) -> None:
    folder = results["identity"][0]
    config = config_of(folder, "identity")
    network = IResNet(config["widths"], config["units"], config["embedding"]).eval()
    network.load_state_dict(load_file(folder / "identity.safetensors"))
    assert network(torch.zeros(1, 3, 112, 112)).shape == (1, config["embedding"])
    folder = results["detector"][0]
    config = config_of(folder, "detector")
    assert config["names"] == list(LANDMARKS)
    reader = FaceReader(config["landmarks"], config["widths"]).eval()
    reader.load_state_dict(load_file(folder / "detector.safetensors"))
    reading = reader(torch.zeros(1, 3, 128, 128))
    assert reading.landmarks.shape == (1, len(LANDMARKS), 2)
    assert reading.mask.shape == (1, 1, 128, 128)
    features = perceptual.from_tensors(load_file(results["perceptual"][0] / "perceptual.safetensors"), size=64)
    assert len(features(torch.zeros(1, 3, 64, 64))) == 5


def test_a_similarity_is_recovered_from_points() -> None:
    points = torch.rand(2, 5, 2)
    truth = warps.about_centre(torch.tensor([0.5, 1.4]), torch.tensor([0.4, -2.0]), torch.ones(2), torch.rand(2, 2))
    assert torch.allclose(warps.similarity(points, warps.moved(points, truth)), truth, atol=1e-5)
    assert torch.allclose(warps.moved(warps.moved(points, truth), warps.inverse(truth)), points, atol=1e-5)


def test_a_warp_carries_what_lies_at_a_point_with_it() -> None:
    size = 64
    axis = (torch.arange(size) + 0.5) / size
    spot = torch.exp(-((axis[:, None] - 0.3) ** 2 + (axis - 0.6) ** 2) / 0.002)[None, None]  # at x 0.6, y 0.3
    maps = warps.about_centre(torch.tensor([0.8]), torch.tensor([0.5]), torch.tensor([1.2]), torch.tensor([[0.05, -0.02]]))
    drawn = warps.warped(spot, maps, size, supersample=2)[0, 0]
    found = expectation((drawn.clamp_min(1e-9).log() * 4)[None, None])[0]
    assert torch.allclose(found, warps.moved(torch.tensor([[[0.6, 0.3]]]), maps)[0], atol=0.01)


def test_mirroring_swaps_left_and_right() -> None:
    order = warps.mirror_order(LANDMARKS)
    assert LANDMARKS[order[LANDMARKS.index("left_eye")]] == "right_eye"
    assert LANDMARKS[order[LANDMARKS.index("nose_tip")]] == "nose_tip"


def test_roll_is_how_far_the_head_leans_clockwise() -> None:
    camera = look(torch.tensor(0.3), torch.tensor(0.1), roll=torch.tensor(-0.2))
    upright = look(torch.tensor(0.3), torch.tensor(0.1))
    assert float(roll(upright)) == pytest.approx(0, abs=1e-5)
    assert abs(float(roll(camera))) == pytest.approx(0.2, abs=1e-4)


def test_disguises_keep_pose_and_landmarks_with_the_picture(data: Path) -> None:
    """Landmarks of a disguised crop lie on its person, and are those of the picture as drawn."""
    shards = Shards(data, held_every=3)
    reader = SightReader(shards, torch.device("cpu"))
    sights = reader.read(torch.arange(6).repeat(4), torch.zeros(24, dtype=torch.int64))
    crops = disguised(sights, 5, ("test",))
    assert crops.image.shape == (24, 3, 128, 128)
    assert crops.image.abs().max() <= 1
    nose = (crops.landmarks[:, LANDMARKS.index("nose_tip")] * 128).long()
    inside = ((nose >= 0) & (nose < 128)).all(1)
    on = crops.mask[torch.arange(24)[inside], 0, nose[inside, 1], nose[inside, 0]]
    assert on.mean() > 0.95
    eyes = crops.landmarks[:, LANDMARKS.index("right_eye")] - crops.landmarks[:, LANDMARKS.index("left_eye")]
    frontal = crops.pose[:, 0].abs() < 0.5
    assert (eyes[frontal, 0] > 0).all()  # mirrored pictures still have the image's left on the left
    assert torch.equal(crops.image, disguised(sights, 5, ("test",)).image)


def test_alignment_brings_landmarks_to_the_template(data: Path) -> None:
    shards = Shards(data, held_every=3)
    reader = SightReader(shards, torch.device("cpu"))
    sights = reader.read(torch.arange(6), torch.zeros(6, dtype=torch.int64))
    assert aligned(sights.image, sights.landmarks).shape == (6, 3, 112, 112)


def test_style_does_not_move_a_persons_direction(data: Path, tmp_path: Path) -> None:
    import numpy as np

    shards = Shards(data, held_every=3)
    before = person_directions(shards, 48, torch.device("cpu"))
    assert torch.allclose(before.norm(dim=1), torch.ones(6), atol=1e-5)
    folder = shards.paths[0]
    copy = tmp_path / folder.name
    copy.mkdir()
    (copy / "index.json").write_text((folder / "index.json").read_text())
    attributes = np.load(folder / "attributes.npy")
    attributes[:, VECTOR.index("hair_style=bald")] = 1
    attributes[:, VECTOR.index("age")] = 0.9
    np.save(copy / "attributes.npy", attributes)
    assert torch.equal(before, person_directions(Shards(tmp_path, held_every=3), 48, torch.device("cpu")))


def test_the_identity_reads_pairs_of_the_generator_too(data: Path, tmp_path: Path) -> None:
    painter = train("generator", data, tmp_path / "g", 1, "--designed") / "generator.safetensors"
    folder = train("identity", data, tmp_path / "i", 1, "--generator", str(painter), "--batch", "8", "--restyled", "2")
    card = json.loads((folder / "identity.card.json").read_text())
    assert card["settings"]["generator"]
    assert card["settings"]["restyled"] == 2
    assert "of the generator" in card["recipe"]


def test_an_identity_of_the_default_size_fits_into_two_megabytes() -> None:
    parser = argparse.ArgumentParser()
    identity.add_arguments(parser)
    args = parser.parse_args(["--data", ".", "--out", "."])
    network = IResNet(args.widths, args.units, args.embedding)
    assert 2 * sum(value.numel() for value in network.state_dict().values()) < 2e6


def test_faces_of_a_sitting_are_disguised_alike_by_a_seed(data: Path, tmp_path: Path) -> None:
    pairs = PairReader(Shards(data, held_every=3), torch.device("cpu"), tmp_path, seed=1, people=1)
    sitting = pairs.read(4, 1, ("test",))
    faces = identity.disguised_faces(sitting, 1, ("test",))
    assert faces.shape == (8, 3, 112, 112)
    assert faces.abs().max() <= 1 + 1e-5
    assert torch.equal(faces, identity.disguised_faces(sitting, 1, ("test",)))
    assert not torch.equal(faces, identity.disguised_faces(sitting, 1, ("other",)))


def test_half_of_a_batch_keeps_its_latents() -> None:
    ws = torch.randn(64, 3, 5)
    moved = disturbed(ws, 0.15, disturbance(*ws.shape, draws.key(0, "disturb"), ws.device))
    same = (moved == ws).flatten(1).all(1)
    assert 20 < int(same.sum()) < 44
    assert (moved - ws).abs().max() < 0.15 * 6


def test_people_are_told_apart_by_the_diagonal() -> None:
    torch.manual_seed(0)
    similar = torch.rand(40, 40) * 0.5 + torch.eye(40)
    assert told_apart([similar])["true_positives_at_1_percent_false"] == 1
    assert told_apart([similar.flip(0)])["true_positives_at_1_percent_false"] < 0.1
