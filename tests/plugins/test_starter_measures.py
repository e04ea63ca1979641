"""What the starter is measured by: arithmetic, sentences, verdicts, geometry, and the command, with tiny stand-ins."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from facednerf_starter.judges import listener
from facednerf_starter.judges.network import Judge, PersonJudge
from facednerf_starter.judges.panel import Judges
from facednerf_starter.judges.questions import BOUNDS, CHOICES, NUMBERS, OUTPUTS, Answers, answers
from facednerf_starter.measures import geometry, people, portraits, reconstruction, sections, sentences
from facednerf_starter.measures.effort import FULL, QUICK, Effort
from facednerf_starter.measures.hearing import accepted
from facednerf_starter.measures.inversions import edited, inverted
from facednerf_starter.measures.measure import Measure, at_least, at_most, averaged, bootstrapped, counted
from facednerf_starter.measures.people import SIZE, held_out, looked_at, one_thread, portrait
from facednerf_starter.measures.report import limit, missed, shown, verdict
from facednerf_starter.measures.sitters import Sitters, plain
from facednerf_starter.measures.verdicts import changed, follows, obeyed, together
from facednerf_starter.plugin import FOLDER, WORDS
from facednerf_starter.train.albums import drawn_by_world
from facednerf_starter.world.attributes import LABELS
from facednerf_starter.world.cameras import look, rays
from facednerf_starter.world.landmarks import LANDMARKS
from facednerf_starter.world.render import render

from facednerf_core import Recipe, optimize
from facednerf_core.errors import UnknownName
from facednerf_core.photos import composited
from facednerf_core.runs import prepare

ONE_STEP = {"invert": 1, "refine": 1, "tune": 1, "edit": 1}
TINY = Effort("tiny", 1, 2, 1, 1, 2, 2, 1, 1, 2, 1, True, False, device="cpu", steps=ONE_STEP)


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of untaught judges, and the shipped one of sentences."""
    from facednerf_starter.train.exports import export

    torch.manual_seed(0)
    shape = {"widths": [4, 4, 4, 4], "blocks": [1, 1, 1, 1]}
    tensors = {f"attributes.{key}": value for key, value in Judge(OUTPUTS, **shape).state_dict().items()}
    tensors |= {f"person.{key}": value for key, value in PersonJudge(8, **shape).state_dict().items()}
    config = {**shape, "embedding": 8, "threshold": 0.5, "choices": list(CHOICES), "numbers": list(NUMBERS)}
    folder = tmp_path_factory.mktemp("judges")
    export(folder, "judges", tensors, config, {})
    shutil.copytree(FOLDER / listener.NAME, folder / listener.NAME)
    return folder


@pytest.fixture(scope="module")
def sitters() -> Sitters:
    return Sitters.of(TINY)


@pytest.fixture
def command(repo: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("starter_benchmark", repo / "benchmarks" / "starter.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_mean_is_over_all_numbers_and_heads_are_drawn_whole() -> None:
    value, low, high = bootstrapped([[1.0, 1.0, 1.0], [0.0]])
    assert value == pytest.approx(0.75)
    assert (low, high) == (0.0, 1.0)  # either head may be drawn twice
    together_ = bootstrapped([[1.0] * 8] * 6 + [[0.0] * 8] * 6)
    apart = bootstrapped([[1.0]] * 48 + [[0.0]] * 48)
    assert together_[0] == apart[0] == 0.5
    assert together_[2] - together_[1] > 2 * (apart[2] - apart[1])
    assert bootstrapped([[0.3], [0.7]]) == bootstrapped([[0.3], [0.7]])
    value, low, high = bootstrapped([[1.0, 1.0]] * 5)
    assert (value, high) == (1.0, 1.0)
    assert low**5 == pytest.approx(0.025)  # five heads of five leave room for doubt
    assert bootstrapped([[0.0]] * 5) == pytest.approx((0.0, 0.0, 1 - low))
    with pytest.raises(ValueError, match="no head"):
        bootstrapped([[], []])


def test_a_known_interval() -> None:
    value, low, high = bootstrapped([[float(i < 90)] for i in range(100)])
    assert value == pytest.approx(0.9)
    assert low == pytest.approx(0.9 - 1.96 * 0.03, abs=0.012)
    assert high == pytest.approx(0.9 + 1.96 * 0.03, abs=0.012)


def test_goals_are_reached_or_missed() -> None:
    assert Measure("s", "n", at_least(0.9), 0.9).passed
    assert not Measure("s", "n", at_least(0.9), 0.89).passed
    assert Measure("s", "n", at_most(0.05), 0.05).passed
    assert not Measure("s", "n", at_most(0.05), 0.06).passed
    assert Measure("s", "n", None, 0.1).passed
    unknown = averaged("s", "n", at_least(0.9), [[], []])
    assert unknown.value is None
    assert not unknown.passed
    assert missed([unknown, Measure("s", "n", None, 1.0)]) == [unknown]
    assert averaged("s", "n", None, [[1.0], [], [0.0]]).about == "2 heads"
    alone = averaged("s", "n", None, [[1.0, 0.0]])
    assert (alone.value, alone.low, alone.high, alone.about) == (0.5, None, None, "1 head")
    assert [counted(1, "head"), counted(2, "sentence"), counted(2, "people")] == ["1 head", "2 sentences", "2 people"]
    assert Measure("s", "n", at_most(0.05), 0.1, unit="%").as_dict()["goal"] == {"at_most": 0.05}


def test_numbers_are_shown_with_their_units() -> None:
    assert shown(0.123, "%") == "12.3 %"
    assert shown(24.04, "dB") == "24.0 dB"
    assert shown(None, "s") == "-"
    assert limit(at_most(0.3), "s") == "≤ 0.30 s"
    assert limit(None, "s") == ""
    assert verdict(Measure("s", "n", None, 1.0)) == ""
    assert verdict(Measure("s", "n", at_least(2), 1.0)) == "missed"
    assert verdict(Measure("s", "n", at_least(1), 1.0)) == "reached"
    assert verdict(Measure("s", "n", None, None)) == "not measured"


def test_quick_looks_at_no_more_than_full() -> None:
    for quick, full in zip(astuple(QUICK)[1:12], astuple(FULL)[1:12], strict=True):
        assert quick <= full
    assert (FULL.edited, FULL.sentences, FULL.distractors) == (12, 8, 100)
    assert QUICK.distractors == 100
    assert FULL.steps == {}  # default settings


def said(**words: str) -> Answers:
    """Answers about one head: the first word of every question but those that are given, and numbers of a half."""
    outputs = torch.zeros(1, OUTPUTS)
    first = 0
    for name in CHOICES:
        outputs[0, first + LABELS[name].index(words.get(name, LABELS[name][1]))] = 4
        first += len(LABELS[name])
    for number, name in enumerate(NUMBERS):
        outputs[0, first + number] = float(words.get(name, 0.5))
    return answers(outputs)


def test_every_sentence_can_be_judged_and_has_a_word_that_is_known() -> None:
    words = set(WORDS.read_text(encoding="utf-8").split())
    every = [*sentences.edits(), *sentences.portrait_edits(), *sentences.captions(6)]
    assert len(sentences.edits()) == 8
    assert len(sentences.portrait_edits()) == 5
    for one in every:
        assert follows(said(), one.asks)
        assert set(one.text.replace(",", " ").split()) & words
        assert all(name in (*CHOICES, *BOUNDS) for name in one.frees)
    with pytest.raises(KeyError, match="mauve"):
        follows(said(), {"hair_color": "mauve"})


def test_half_of_the_captions_are_written_freely() -> None:
    found = sentences.captions(6)
    for topic in sentences.TOPICS:
        own = [one for one in found if one.topic == topic]
        assert sum(one.free for one in own) == 6
        assert sum(not one.free for one in own) == 6
    texts = [one.text for one in found if one.free]
    assert len(set(texts)) == len(texts)
    assert found == sentences.captions(6)


def test_a_caption_asks_only_what_it_says() -> None:
    true = {"hair_style": "long", "hair_color": "red", "beard": "goatee", "expression": "smile", "age": "0.9"}
    topics = {"hair": ["long ginger hair"], "hair color": ["ginger hair"], "beard": ["a goatee"], "age": ["old"]}
    assert sentences.told("a woman with ginger hair", topics, true) == {"hair colour": {"hair_color": "red"}}
    both = sentences.told("a smiling old man with long ginger hair, a goatee", topics, true)
    assert both == {
        "beard": {"beard": "goatee"}, "hair colour": {"hair_color": "red"}, "hair length": {"hair_style": "long"},
        "smile": {"expression": "smile"}, "age": {"old": "yes"},
    }  # fmt: skip
    assert sentences.told("bald man", {"hair": ["bald"]}, true | {"hair_style": "bald"}) == {"bald": {"hair_style": "bald"}}


def test_verdicts_on_one_head() -> None:
    found = said(hair_color="blue", glasses="yes", age="0.8")
    assert obeyed(found, {"hair_color": "blue", "old": "yes"}) == 1
    assert obeyed(found, {"hair_color": "blue", "old": "no"}) == 0
    before = said(glasses="no", hair_style="short")
    moved = changed(before, said(glasses="yes", hair_style="long", age="0.9"), {"glasses"})
    assert moved["hair_style"]
    assert moved["old"]
    assert "glasses" not in moved
    assert not moved["hat"]
    assert not changed(before, said(glasses="no", hair_style="short", age="0.7"), set())["old"]  # within the slack
    assert "hair_color" not in changed(before, said(hair_style="bald"), set())
    outputs = [said(hat="yes"), said(hat="yes"), said(hat="no")]
    three = Answers(
        {name: torch.cat([one.logits[name] for one in outputs]) for name in CHOICES},
        {name: torch.cat([one.numbers[name] for one in outputs]) for name in NUMBERS},
    )
    assert obeyed(together(three), {"hat": "yes"}) == 1


def test_processes_draw_what_one_would(monkeypatch: pytest.MonkeyPatch) -> None:
    heads, cameras, cpu = held_out(3), looked_at(3)[:, None], torch.device("cpu")
    monkeypatch.setattr(people, "SHARE", 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = people.drawn(heads, cameras, cpu)
    finally:
        torch.set_num_threads(before)
    assert people._workers.cache_info().currsize == 1, "processes were used"
    with one_thread():
        alone = drawn_by_world(heads, cameras, SIZE, cpu)
    assert torch.equal(found.image, alone.image)
    assert torch.equal(found.mask, alone.mask)


def test_one_percent_of_strangers_is_accepted() -> None:
    torch.manual_seed(0)
    similar = torch.rand(60, 60) * 0.5 + 0.45 * torch.eye(60)
    kept = np.mean([own[0] for own in accepted(similar)])
    strangers = similar[~torch.eye(60, dtype=torch.bool)]
    threshold = strangers.sort().values[int(0.99 * (len(strangers) - 1))]
    assert kept == pytest.approx(float((similar.diagonal() > threshold).float().mean()))


def test_sentences_ask_something_new_of_every_sitter() -> None:
    heads = held_out(5, wanted=plain)
    assert plain(heads).all()
    assert (heads.hat == 0).all()
    assert not (heads.hair_style == LABELS["hair_style"].index("long")).any()
    assert torch.equal(heads[[0, 1]].unit, held_out(2, wanted=plain).unit)
    assert looked_at(3).shape == (3, 25)


def test_the_portrait_of_a_sitter_is_its_picture(sitters: Sitters) -> None:
    truth = sitters.truth(0)
    subject = portrait(truth, 0, sitters.cameras[0])
    assert torch.allclose(composited(subject, "white"), truth.image[:1, :1], atol=2e-2)
    assert subject.landmarks.shape == (1, 1, len(LANDMARKS), 2)
    assert truth is sitters.truth(0)
    own = render(sitters.heads[[0]], sitters.cameras[:1, None], SIZE)
    assert torch.allclose(truth.image[:, 0], own.image[:, 0], atol=1e-2)  # the first view is the portrait's


def test_threads_come_back() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_an_edit_gone_on_with_is_the_edit_in_one_go(sitters: Sitters) -> None:
    effort = replace(TINY, steps=ONE_STEP)
    subject = portrait(sitters.truth(0), 0, sitters.cameras[0])
    latent = edited(inverted(subject, effort), "a person with a hat", effort)
    recipe = Recipe(task="edit", prompt="a person with a hat", steps=ONE_STEP, device="cpu")
    prepared = prepare(recipe, portrait=subject)
    *_, last = optimize(prepared.problem)
    assert torch.equal(latent.w, last.state.latent(prepared.problem.generator.deviation()).w)


def test_gradient_energy_is_that_of_the_picture_inside() -> None:
    torch.manual_seed(0)
    image, mask = torch.rand(2, 3, 16, 16), torch.ones(2, 1, 16, 16)
    assert reconstruction.energy(0.5 * image, mask) == pytest.approx(0.25 * reconstruction.energy(image, mask), rel=1e-4)
    mask[..., 8:] = 0
    outside = image.clone()
    outside[..., 8:] = 5
    assert reconstruction.energy(image, mask) == pytest.approx(reconstruction.energy(outside, mask))


def test_depth_errors_are_relative_to_distance_and_to_relief() -> None:
    truth = torch.linspace(2.0, 3.0, 16 * 16).view(1, 1, 16, 16)
    found = torch.nn.functional.avg_pool2d(truth, 2) * 1.01
    relative, relief = reconstruction.depth_errors(found, truth, torch.ones(1, 1, 16, 16))
    assert relative == pytest.approx(0.01, abs=1e-4)
    assert 0.02 < relief < 0.035  # a hundredth of 2.5 in parts of nine tenths


def test_loose_pieces_are_weighed() -> None:
    alpha = torch.zeros(20, 20)
    alpha[2:12, 2:12] = 1
    assert geometry.largest(alpha) == 1
    alpha[16:18, 16:18] = 1
    assert geometry.largest(alpha) == pytest.approx(100 / 104)
    assert geometry.largest(torch.zeros(4, 4)) == 0


def test_the_inner_face_is_within_its_landmarks() -> None:
    marks = torch.full((len(LANDMARKS), 2), 0.5)
    for name, at in {"left_brow": (0.3, 0.3), "right_brow": (0.7, 0.3), "chin": (0.5, 0.9)}.items():
        marks[LANDMARKS.index(name)] = torch.tensor(at)
    inner = geometry.inner_face(marks, 20)
    assert inner[0, 10, 10] == 1
    assert inner[0, 17, 4] == 0
    assert 0.05 < inner.mean() < 0.25


def test_a_surface_warps_back_onto_itself() -> None:
    """A painted plane through the head's middle, seen from the front and from 0.3 radians aside."""
    size = 64

    def seen(camera: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        origin, direction = rays(camera, size)
        depth = -origin[:, 2] / direction[:, 2]  # to the plane z = 0
        place = origin + direction * depth[:, None]
        wave: Callable[[torch.Tensor], torch.Tensor] = torch.sin
        image = torch.stack([wave(12 * place[:, 0]), wave(12 * place[:, 1]), wave(9 * place[:, 0] + 5 * place[:, 1])])
        return image.view(3, size, size), depth.view(size, size)

    cameras = look(torch.tensor([0.0, 0.3]), torch.zeros(2))
    front, side = seen(cameras[0]), seen(cameras[1])
    back, both = geometry.warped_back(front, side, (cameras[0], cameras[1]))
    assert both.float().mean() > 0.8
    assert (back - front[0])[:, both].abs().max() < 0.05
    assert (side[0] - front[0])[:, both].abs().max() > 0.3
    _, both = geometry.warped_back((front[0], front[1] - 0.2), side, (cameras[0], cameras[1]))
    assert both.float().mean() < 0.2  # another surface
    assert geometry.relief(front[1], torch.ones(size, size)) > 0


def test_photos_are_disturbed_only_in_full(tmp_path: Path) -> None:
    from PIL import Image

    from facednerf_core.errors import InputError

    assert [look.name for look in portraits.looks(TINY)] == ["astronaut"]
    Image.new("RGB", (30, 20)).save(tmp_path / "me.png")
    every = list(portraits.looks(replace(TINY, disturbed=True, photos=(tmp_path / "me.png",))))
    assert len(every) == 10
    assert [look.picture.size for look in every if look.name == "me, at half size"] == [(15, 10)]
    with pytest.raises(InputError, match="cannot be read"):
        list(portraits.looks(replace(TINY, photos=(tmp_path / "none.png",))))


def test_without_judges_a_section_says_so_and_is_missed(tmp_path: Path) -> None:
    bench = sections.Bench.of(replace(TINY, weights=tmp_path))
    for name in ("judges", "diffusion", "edits"):
        found = sections.measured(name, bench)
        assert found
        assert not any(one.passed for one in found)
        assert all("train judges" in one.about for one in found)
    assert sections.chosen([], FULL) == sections.ORDER
    assert sections.chosen(["edits", "generator"], FULL) == ("generator", "edits")
    assert sections.chosen([], QUICK) == sections.ORDER[:-1]
    assert sections.chosen([], replace(QUICK, photos=(Path("me.jpg"),))) == sections.ORDER
    assert sections.chosen(["portraits"], QUICK) == ("portraits",)
    with pytest.raises(UnknownName, match="edit"):
        sections.chosen(["edit"], FULL)


def test_the_command_prints_a_table_writes_json_and_fails_on_a_miss(
    command: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {"judges": 0.99, "generator": 0.97}

    def measured(name: str, bench: sections.Bench) -> list[Measure]:
        assert bench.effort.name == "quick"
        return [averaged(name, "told right", at_least(0.98), [[values[name]]], unit="%")]

    monkeypatch.setattr(sections, "measured", measured)
    file = tmp_path / "found.json"
    assert command.main(["--quick", "--only", "judges"]) == 0
    assert "1 of 1 reached" in capsys.readouterr().out
    assert command.main(["--quick", "--only", "judges, generator", "--json", str(file)]) == 1
    out = capsys.readouterr().out
    assert "told right" in out
    assert "≥ 98.0 %" in out
    assert "97.0 %" in out
    assert "missed" in out
    found = json.loads(file.read_text())
    assert found["missed"] == 1
    assert [(one["section"], one["passed"]) for one in found["measures"]] == [("judges", True), ("generator", False)]
    assert command.main(["--only", "edit"]) == 2
    assert "edits" in capsys.readouterr().err


@pytest.mark.slow
def test_every_section_measures(judges: Path) -> None:
    bench = sections.Bench.of(replace(TINY, weights=judges))
    assert isinstance(bench.judges, Judges)
    for name in sections.ORDER:
        found = sections.measured(name, bench)
        assert found
        unknown = [one.name for one in found if one.value is None]
        assert not [one for one in unknown if "pictures of" not in one], unknown  # of two heads some show no hair
    names = {one.name for one in found}
    assert names == set(portraits.GOALS)
