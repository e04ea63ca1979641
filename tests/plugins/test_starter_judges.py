"""The judges: what they are asked, what of it can be seen, whom they learn from, their files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from facednerf_starter.judges import questions
from facednerf_starter.judges.network import SIZE, Judge, PersonJudge
from facednerf_starter.judges.panel import Judges
from facednerf_starter.judges.questions import BOUNDS, CHOICES, HIDDEN, NUMBERS, OUTPUTS, answers, right, shares, truth
from facednerf_starter.train import draws, hearing
from facednerf_starter.train.__main__ import main
from facednerf_starter.train.albums import Portraitist, kept, restyled, seen_from
from facednerf_starter.train.exposures import PLAIN, exposed, placed
from facednerf_starter.train.judges import blame
from facednerf_starter.train.mapping import Design, told
from facednerf_starter.train.recognition import confusion
from facednerf_starter.train.shards import Shards
from facednerf_starter.train.sitters import PairReader
from facednerf_starter.world.anatomy import measure
from facednerf_starter.world.attributes import IDENTITY, LABELS, decode, draw
from facednerf_starter.world.landmarks import LANDMARKS, landmarks
from facednerf_starter.world.render import render
from safetensors.torch import load_file

from facednerf_core.errors import InputError, MissingWeights
from facednerf_core.views import angles

CPU = torch.device("cpu")
TINY = ["--device", "cpu", "--tiny", "--batch", "8"]


@pytest.fixture(scope="module")
def generator(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny generator with a designed W, hardly trained."""
    root = tmp_path_factory.mktemp("generator")
    main(["mapping", "--out", str(root), "--designed", *TINY, "--steps", "2"])
    words = ["--data", str(data), "--out", str(root), "--held", "3", "--steps", "1", *TINY]
    main(["generator", *words, "--mapping", str(root / "mapping.safetensors")])
    return root / "generator.safetensors"


@pytest.fixture(scope="module")
def trained(data: Path, generator: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of the recipe, with a generator."""
    root = tmp_path_factory.mktemp("judges")
    words = ["--data", str(data), "--out", str(root), "--held", "3", "--steps", "2", *TINY]
    main(["judges", *words, "--generator", str(generator)])
    return root


def test_the_card_tells_the_world_from_the_generator_and_people_from_attributes(trained: Path) -> None:
    measured = json.loads((trained / "judges.card.json").read_text())["measured_on_held_out_heads"]
    assert set(measured["world"]) & set(BOUNDS)
    assert {f"{name}_error" for name in NUMBERS} <= set(measured["generator"])
    assert set(measured["person"]) == {"world", "generator", "world_to_generator", "all"}
    assert (trained / "judges.png").exists()


def test_the_judges_load_by_their_files(trained: Path) -> None:
    judges = Judges.from_files(trained)
    assert judges.threshold == json.loads((trained / "judges.json").read_text())["threshold"]
    image = torch.rand(3, 3, 64, 64) * 2 - 1
    found = judges.tell(image)
    assert {name: logits.shape[1] for name, logits in found.logits.items()} == {n: len(LABELS[n]) for n in CHOICES}
    assert found.words("expression")[0] in LABELS["expression"]
    assert torch.allclose(judges.embed(image).norm(dim=1), torch.ones(3), atol=1e-4)
    kept_as = load_file(trained / "judges.safetensors")
    again = judges.attributes.state_dict()
    assert all(torch.equal(again[key.split(".", 1)[1]], value.to(again[key.split(".", 1)[1]].dtype))
               for key, value in kept_as.items() if key.startswith("attributes."))  # fmt: skip


def test_missing_files_and_other_questions_are_told(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match=r"judges\.safetensors.*train judges"):
        Judges.from_files(tmp_path)
    config = json.loads((trained / "judges.json").read_text()) | {"choices": ["hat"]}
    with pytest.raises(MissingWeights, match="train them again"):
        Judges.from_tensors(load_file(trained / "judges.safetensors"), config)


def test_both_judges_of_the_default_size_fit_into_three_megabytes() -> None:
    shape = [32, 56, 80, 100], [1, 2, 2, 2]
    both = Judge(OUTPUTS, *shape), PersonJudge(96, *shape)
    assert 2 * sum(value.numel() for network in both for value in network.state_dict().values()) < 3e6


def test_the_person_judge_sees_the_face_alone() -> None:
    torch.manual_seed(0)
    network = PersonJudge(8, [4, 4, 4, 4], [1, 1, 1, 1]).eval()
    image = torch.rand(1, 3, SIZE, SIZE)
    other = image.clone()
    other[..., :20, :], other[..., :12], other[..., -12:] = 0, 0, 0
    assert torch.equal(network(image), network(other))
    other[..., 60, 60] = 3
    assert not torch.equal(network(image), network(other))


def test_what_cannot_be_seen_is_not_asked() -> None:
    heads = decode(draw(3, 0, 6)).replace(hat=0, hair_style="long")
    style, colour = (truth(heads).choices[:, CHOICES.index(name)] for name in ("hair_style", "hair_color"))
    assert (colour == heads.hair_color).all()
    assert (style == LABELS["hair_style"].index("long")).all()

    def asked(**changes: float | str) -> dict[str, bool]:
        choices = truth(heads.replace(**changes)).choices
        return {name: bool((choices[:, i] != HIDDEN).all()) for i, name in enumerate(CHOICES)}

    assert asked(hair_style="bald") == {name: name != "hair_color" for name in CHOICES}
    capped = {"hat": 1, "hair_style": "short", "femininity": 0.1}
    assert asked(**capped) == {name: name not in ("hair_color", "hair_style") for name in CHOICES}
    assert all(asked(**capped | {"femininity": 0.9, "hair_length": 0.8}).values())  # a bob shows under the hat
    assert all(asked(hat=1).values())


def test_hidden_answers_move_nothing() -> None:
    heads = decode(draw(3, 0, 4)).replace(hair_style="bald", hat=0)
    outputs = torch.randn(4, OUTPUTS, requires_grad=True)
    blame(answers(outputs), truth(heads))["choices"].backward()
    first = len(LABELS["hair_style"])
    assert (outputs.grad[:, first : first + len(LABELS["hair_color"])] == 0).all()
    assert (outputs.grad[:, :first] != 0).all()
    told = right(answers(outputs.detach()), truth(heads))
    assert "hair_color" not in shares(told)
    assert "hair_style" in shares(told)


def test_right_answers_count_and_numbers_have_a_margin() -> None:
    heads = decode(draw(5, 0, 200))
    wanted = truth(heads)
    outputs = torch.zeros(200, OUTPUTS)
    first = 0
    for column, name in enumerate(CHOICES):
        seen = wanted.choices[:, column] != HIDDEN
        outputs[seen, first + wanted.choices[seen, column]] = 5
        first += len(LABELS[name])
    outputs[:, first:] = wanted.numbers
    told = right(answers(outputs), wanted)
    assert shares(told) == dict.fromkeys((*CHOICES, *BOUNDS), 1.0)
    outputs[:, first] = 1 - wanted.numbers[:, 0]
    assert shares(right(answers(outputs), wanted))["old"] < 0.3
    asked = told["old"][1]
    assert not asked[(heads.age > BOUNDS["old"].low) & (heads.age < BOUNDS["old"].high)].any()
    with pytest.raises(ValueError, match="outputs"):
        questions.answers(outputs[:, 1:])


def test_people_are_the_same_in_another_style_and_a_style_belongs_to_a_number() -> None:
    z = draw(1, 0, 5)
    numbers = torch.arange(5)
    people = restyled(z, 1, "style", numbers=numbers)
    own = decode(z)
    assert all(torch.equal(getattr(people, name), getattr(own, name)) for name in IDENTITY)
    assert not torch.equal(people.light, own.light)
    assert torch.equal(restyled(z[3:], 1, "style", numbers=numbers[3:]).unit, people.unit[3:])
    assert not torch.equal(restyled(z, 1, "held", numbers=numbers).unit, people.unit)
    yaw, _ = angles(seen_from(1, "world", 50))
    assert yaw.abs().max() < 0.41


def test_a_pair_shows_one_person_and_tells_the_truth_about_both(data: Path, generator: Path, tmp_path: Path) -> None:
    shards = Shards(data, held_every=3)
    painter = Portraitist.from_file(generator, CPU)
    for who in (None, painter):
        pairs = PairReader(shards, CPU, tmp_path, seed=1, people=3, painter=who)
        sitting = pairs.read(8, 1, ("test",))
        assert sitting.image.shape == (16, 3, 64, 64)
        assert torch.equal(sitting.people[:8], sitting.people[8:])
        assert torch.isin(sitting.people, shards.training).all()  # held-out heads are never learned from
        heads = decode(shards.field("z").take(sitting.people))
        own = (sitting.truth.choices == truth(heads).choices).all(1)
        others = restyled(shards.field("z").take(sitting.people), 1, "style", numbers=sitting.people)
        other = (sitting.truth.choices == truth(others).choices).all(1)
        assert (own | other).all()
        assert other[8:].any()
        assert not own.all()
        names = ["femininity", "skin"]
        columns = [NUMBERS.index(name) for name in names]
        assert torch.allclose(sitting.truth.numbers[:8, columns], sitting.truth.numbers[8:, columns])


def test_a_pairs_landmarks_are_those_of_its_pictures(data: Path, generator: Path, tmp_path: Path) -> None:
    shards = Shards(data, held_every=3)
    pairs = PairReader(shards, CPU, tmp_path, seed=1, people=3, painter=Portraitist.from_file(generator, CPU))
    sitting = pairs.read(16, 1, ("test",))
    assert sitting.landmarks.shape == (32, len(LANDMARKS), 2)
    known = shards.field("landmarks").take(sitting.people[:8, None].expand(8, 2), torch.arange(2).expand(8, 2))
    assert (sitting.landmarks[:8, None] == known).flatten(2).all(2).any(1).all()  # views of the world

    own = sitting.people[8:12]  # whom the generator draws as they are
    cameras = seen_from(1, "drawn", shards.count)[own]
    there = landmarks(measure(decode(shards.field("z").take(own))), cameras)[:, 0]
    assert torch.allclose(sitting.landmarks[8:12], there, atol=1e-5)

    other = sitting.people[16:17]  # whom the world draws in another style
    people = restyled(shards.field("z").take(other), 1, "style", numbers=other)
    seen = render(people, seen_from(1, "world", shards.count)[other], 64, supersample=2)
    assert torch.allclose(sitting.landmarks[16], seen.landmarks[0, 0], atol=1e-5)
    assert (sitting.image[16] - seen.image[0, 0]).abs().max() < 0.02


def test_a_latent_of_attributes_is_the_latent_of_their_draw(generator: Path) -> None:
    painter = Portraitist.from_file(generator, CPU)
    z = draw(4, 0, 3)
    assert isinstance(painter.design, Design)
    ws = painter.latents(decode(z))
    assert torch.allclose(ws, painter.design.rows(told(z), painter.network.num_ws), atol=1e-5)
    with pytest.raises(InputError, match="designed"):
        Portraitist(painter.network, None).latents(decode(z))


def test_an_album_is_made_once_for_its_settings(tmp_path: Path) -> None:
    from facednerf_starter.train.albums import Album

    made = []

    def make() -> Album:
        made.append(1)
        return Album(torch.full((2, 3, 4, 4), len(made), dtype=torch.uint8), torch.zeros(2, 1, 4, 4, dtype=torch.uint8))

    path = tmp_path / "album.safetensors"
    first, again = (kept(path, make, {"seed": 1}) for _ in range(2))
    assert len(made) == 1
    assert torch.equal(first.image, again.image)
    assert kept(path, make, {"seed": 2}).image.max() == 2


def test_exposures_keep_some_pictures_and_repeat_themselves() -> None:
    image = torch.rand(64, 3, 32, 32) * 2 - 1
    mask = torch.zeros(64, 1, 32, 32)
    mask[..., 8:24, 8:24] = 1
    image = image * mask + 1 - mask
    shown = exposed(image, mask, 1, ("test",))
    assert shown.shape == image.shape
    assert shown.abs().max() <= 1
    same = (shown == image).flatten(1).all(1).float().mean()
    assert abs(float(same) - PLAIN) < 0.2
    assert torch.equal(shown, exposed(image, mask, 1, ("test",)))
    assert not torch.equal(shown, exposed(image, mask, 1, ("other",)))
    corner = shown[..., 0, 0]
    assert (corner < 0.9).any(1).float().mean() > 0.3  # many are no longer over white


def test_what_is_placed_stays_where_it_was() -> None:
    image, mask = torch.ones(8, 3, 32, 32), torch.zeros(8, 1, 32, 32)
    mask[..., 8:24, 8:24] = 1
    image[..., 8:24, 8:24] = -1
    shown = placed(image, mask, 1, ("test",))
    inside = torch.where(mask.bool(), shown, 0.0).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)))
    assert shown.shape == image.shape
    assert (inside < -0.6).all()
    assert torch.equal(shown, placed(image, mask, 1, ("test",)))


def test_a_person_is_not_held_against_itself() -> None:
    known = torch.nn.functional.normalize(torch.eye(6), dim=1)
    people = torch.tensor([0, 1, 0])
    one = confusion(torch.cat([known[[0, 1, 0]], known[[0, 1, 0]]]), people.repeat(2))
    other = confusion(torch.cat([known[[0, 1, 0]], known[[0, 1, 0]]]), torch.arange(3).repeat(2))
    assert one < 1e-3  # rows 0 and 2 show the same person, and do not compete
    assert other > 0.3


def test_scores_are_over_all_batches() -> None:
    heads = decode(draw(6, 0, 3))
    outputs = torch.zeros(3, OUTPUTS)
    scored = hearing.score([answers(outputs[:2]), answers(outputs[2:])], [truth(heads[[0, 1]]), truth(heads[[2]])])
    assert scored["age_error"] == pytest.approx(float(heads.age.mean()), abs=1e-3)
    assert draws.key(1, "a") != draws.key(1, "b")
