"""fdn edit, invert and resume with everything that can be wrong: exit code 2, one clear message, nothing left behind."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from facednerf_core import compose, photos, plans
from facednerf_core.cli import main
from facednerf_core.framing import Framing
from facednerf_core.plugins import installed
from facednerf_core.recipe import Recipe
from facednerf_core.weights import Registry

Fdn = Callable[..., tuple[int, str, str]]
SHORT = (
    *("--size", 32, "--option", "eg3d.rays=16", "--option", "eg3d.coarse=6", "--option", "eg3d.fine=4", "--frames", 0),
    *("--steps", "invert=1", "--steps", "refine=0", "--steps", "tune=0"),
)
CALM = """
from facednerf_core.cards import Card
from facednerf_core.hookspecs import hookimpl
from facednerf_core.interfaces import Guidance
from facednerf_core.terms import Loss

class Calm(Guidance):
    def aim(self, prompt, subject, *, source_prompt=None, negative=""):
        return lambda rendering, step: Loss(rendering.image.mean(dim=(1, 2, 3, 4)) * 0.1)

@hookimpl
def register_guidances(register):
    register(Card("calm", "Wants it darker.", lambda device, weights: Calm(), needs_weights=False))
"""


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    from skimage.data import astronaut

    return np.asarray(astronaut())[:260, 90:350]


@pytest.fixture
def photo(astronaut: np.ndarray, tmp_path: Path) -> Path:
    path = tmp_path / "face.png"
    Image.fromarray(astronaut).save(path)
    return path


@pytest.fixture
def fdn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Fdn:
    """Runs fdn in this process, in a folder of its own: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fdn", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        said = capsys.readouterr()
        assert isinstance(code, int)
        return code, said.out, said.err

    return run


def refused(ended: tuple[int, str, str], *pieces: str) -> None:
    """Exit code 2, one message with these pieces on standard error, nothing on standard output, no run folder."""
    code, out, err = ended
    assert code == 2, err
    assert out == ""
    assert err.startswith("fdn: ")
    assert len(err.strip().splitlines()) == 1, err
    assert "Traceback" not in err
    for piece in pieces:
        assert piece in err, err
    assert not Path("runs").exists()
    assert not Path("out").exists()


def damaged(name: str, astronaut: np.ndarray, folder: Path) -> Path:
    path = folder / f"{name}.jpg"
    if name == "tiny":
        Image.fromarray(astronaut[:20, :20]).save(path)
    elif name == "truncated":
        Image.fromarray(astronaut).save(path)
        path.write_bytes(path.read_bytes()[:3000])
    elif name == "not_an_image":
        path.write_text("a face")
    elif name == "folder":
        path.mkdir()
    elif name == "empty":
        path.write_bytes(b"")
    elif name == "nobody":
        noise = np.random.default_rng(0).integers(0, 60, (200, 200, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "piece"),
    [
        ("tiny", "20 x 20 pixels"),
        ("truncated", "damaged or cut short"),
        ("not_an_image", "not a picture"),
        ("folder", "is a folder"),
        ("empty", "is empty"),
        ("missing", "there is no photo"),
        ("nobody", "no face is found in the photo"),
    ],
)
def test_a_photo_that_cannot_be_used_is_one_message(name, piece, fdn: Fdn, astronaut, tmp_path: Path) -> None:
    refused(fdn("edit", damaged(name, astronaut, tmp_path), "blue hair", "--out", "out"), piece)


def test_where_no_face_is_found_crop_and_camera_are_the_ways_out(fdn: Fdn, astronaut, install, tmp_path: Path) -> None:
    install("facednerf-calm", CALM, facednerf={"calm": "facednerf_calm"})
    nobody = damaged("nobody", astronaut, tmp_path)
    refused(fdn("invert", nobody), "--crop", "--camera")
    ways_out = ("--crop", "100,100,160", "--camera", "0.1,0", "--out", "out")
    code, _, err = fdn("edit", nobody, "blue hair", *ways_out, *SHORT, "--guidance", "calm", "--steps", "edit=1")
    assert code == 0, err


def test_of_several_faces_the_largest_is_taken_and_said_once(fdn: Fdn, astronaut, install, tmp_path: Path) -> None:
    install("facednerf-calm", CALM, facednerf={"calm": "facednerf_calm"})
    two = np.full((260, 400, 3), 127, np.uint8)
    two[:, :260] = astronaut
    two[:130, 265:395] = astronaut[::2, ::2]
    Image.fromarray(two).save(tmp_path / "two.png")
    words = ("edit", tmp_path / "two.png", "blue hair", *SHORT, "--guidance", "calm", "--steps", "edit=1")
    code, out, err = fdn(*words, "--out", "first")
    assert code == 0, err
    assert (out + err).count("2 faces found") == 1
    assert "warning: 2 faces found; the largest is taken" in err
    assert "--face 2" in err
    assert (out + err).count("dB from the photo") == 1
    code, _, err = fdn(*words, "--out", "second", "--face", 2)
    assert code == 0, err
    assert "faces found" not in err
    assert Image.open("first/before.png").tobytes() != Image.open("second/before.png").tobytes()
    refused(fdn(*words, "--out", "out", "--face", 3), "there is no face 3: 2 faces found")
    refused(fdn(*words, "--out", "out", "--face", 0), "there is no face 0")


@pytest.mark.parametrize("sentence", ["", "   ", "?!"])
def test_an_empty_sentence_is_refused(sentence: str, fdn: Fdn, photo: Path) -> None:
    refused(fdn("edit", photo, sentence, "--out", "out"), "the sentence is empty")


def test_a_sentence_that_is_too_long_is_refused_not_cut(fdn: Fdn, photo: Path) -> None:
    refused(fdn("edit", photo, "a woman with blue hair and " * 40, "--out", "out"), "tokens", "nothing is cut")


@pytest.mark.parametrize("sentence", ["zorp", "Zorp-blick, 42!", "zorp zorp blick"])
def test_a_sentence_of_which_no_word_is_known_is_refused(sentence: str, fdn: Fdn, photo: Path) -> None:
    refused(fdn("edit", photo, sentence, "--out", "out"), "knows none of the words of the sentence: 'zorp'")


def test_a_word_that_is_not_known_is_said_and_the_run_goes_on(fdn: Fdn, photo: Path) -> None:
    code, _, err = fdn("edit", photo, "a zorp woman with blue hair", *SHORT, "--steps", "edit=1", "--out", "out")
    assert code == 0, err
    assert err.count("never learnt: 'zorp'") == 1
    assert any("zorp" in note for note in json.loads(Path("out/run.json").read_text())["notes"])


@pytest.mark.parametrize(
    ("words", "pieces"),
    [
        (("--backbone", "eg3"), ("no backbone named 'eg3'", "Did you mean 'eg3d'?")),
        (("--guidance", "sd"), ("no guidance named 'sd'", "Did you mean 'sds'?")),
        (("--identity", "arcfase"), ("no identity named 'arcfase'", "Did you mean 'arcface'?")),
        (("--weights", "starterr"), ("no weights pack named 'starterr'", "Did you mean 'starter'?")),
        (("--weights-card", "generator=eg3d/startr"), ("no weights card", "Did you mean 'eg3d/starter'?")),
        (("--recipe", "papper"), ("no recipe named 'papper'", "Did you mean 'paper'?")),
        (("--steps", "edti=5"), ("no stage named 'edti'", "Did you mean 'edit'?")),
        (("--steps", "edit"), ("--steps 'edit': say NAME=VALUE",)),
        (("--steps", "edit=few"), ("'few' is not a whole number",)),
        (("--steps", "edit=-1"), ("must be at least 0",)),
        (("--weight", "identity="), ("say NAME=VALUE",)),
        (("--weight", "identiy=1"), ("no loss weight named 'identiy'", "Did you mean 'identity'?")),
        (("--weight", "identity=nan"), ("weights must be finite",)),
        (("--weight", "edit.identity=nan"), ("weights must be finite",)),
        (("--weight", "edti.identity=2"), ("no stage named 'edti'", "Did you mean 'edit'?")),
        (("--weight", "edit.identiy=2"), ("no term of stage 'edit' named 'identiy'", "Did you mean 'identity'?")),
        (("--recipe", "paper", "--weight", "latent=2"), ("no term named 'latent'", "would do nothing")),
        (("--strength", "inf"), ("strength must be finite",)),
        (("--option", "eg3d=5"), ("say PLUGIN.NAME=VALUE",)),
        (("--option", "eg3d.ray=5"), ("eg3d has no option 'ray'", "rays")),
        (("--option", "eg3d.rays=many"), ("option 'rays' of eg3d",)),
        (("--option", "eg4d.rays=5"), ("no plugin named 'eg4d'", "Did you mean 'eg3d'?")),
        (("--camera", "0.1"), ("1 numbers, not 2",)),
        (("--camera", "left,up"), ("'left' is not a number",)),
        (("--camera", "nan,0"), ("camera must be finite",)),
        (("--crop", "1,2"), ("2 numbers, not 3",)),
        (("--crop", "9000,10,50"), ("does not lie on the photo",)),
        (("--crop", "10,10,1"), ("at least 24 pixels",)),
        (("--size", "0"), ("size must be at least",)),
        (("--frames", "-1"), ("frames must be at least 0",)),
        (("--device", "tpu9"), ("no device 'tpu9'", "cpu")),
        (("--recipe", "paper", "--strength", "0.5"), ("--strength 0.5 does not apply",)),
    ],
)
def test_an_option_that_cannot_be_is_one_message(words, pieces, fdn: Fdn, photo: Path) -> None:
    refused(fdn("edit", photo, "blue hair", "--out", "out", *words), *pieces)


@pytest.mark.parametrize(
    ("text", "piece"),
    [
        (b"steps = [", "is not valid TOML"),
        (b"\xff\xfe", "is not valid TOML"),
        (b"stepz = 3", "no recipe field named 'stepz'"),
        (b"steps = 3", "recipe field 'steps'"),
        (b"weights = 3", "recipe field 'weights"),
        (b"seed = 'one'", "recipe field 'seed'"),
        (b"[weights]\nguidence = 1", "no loss weight named 'guidence'"),
        (None, "cannot read the config"),
    ],
)
def test_a_config_that_cannot_be_is_one_message(text, piece: str, fdn: Fdn, photo: Path) -> None:
    if text is not None:
        Path("bad.toml").write_bytes(text)
    refused(fdn("edit", photo, "blue hair", "--out", "out", "--config", "bad.toml"), piece)


@pytest.mark.parametrize(
    ("words", "piece"),
    [
        (("edit", "face.png", "blue hair", "--config", "bad.toml"), "no recipe field named 'stepz'"),
        (("edit", "face.png", "blue hair", "--config", "worse.toml"), "is not valid TOML"),
        (("edit", "face.png", "blue hair", "--config", "none.toml"), "cannot read the config"),
        (("invert", "face.png", "--steps", "tune"), "say NAME=VALUE"),
        (("edit", "face.png", "blue hair", "--backbone", "eg3"), "Did you mean 'eg3d'?"),
        (("edit", "nowhere.png", "blue hair"), "there is no photo"),
        (("edit", "face.png", "blue hair", "--out", "face.png"), "is a file, not a folder"),
        (("edit", "face.png"), "Missing argument"),
        (("edit", "face.png", "blue hair", "--seed", "one"), "--seed"),
        (("invert", "face.png", "--sed", "1"), "--sed"),
        (("edti", "face.png"), "Did you mean 'edit'?"),
        (("--loud",), "--loud"),
        (("resume", "nowhere"), "is not a run"),
        (("plugins", "show", "sd"), "Did you mean 'sds'?"),
        (("weights", "path", "eg3d/startr"), "Did you mean 'eg3d/starter'?"),
    ],
)
def test_with_json_every_refusal_is_one_object(words, piece: str, fdn: Fdn, photo: Path) -> None:
    Path("bad.toml").write_text("stepz = 3")
    Path("worse.toml").write_text("steps = [")
    code, out, err = fdn(*words, "--json")
    assert code == 2
    said = json.loads(out)
    assert said.keys() == {"status", "error", "run"}
    assert said["status"] == "failed"
    assert piece in said["error"]
    assert said["run"] is None
    assert said["error"] in err
    assert "Traceback" not in err
    assert not Path("runs").exists()


def test_the_command_line_goes_above_the_config(fdn: Fdn, photo: Path, install) -> None:
    install("facednerf-calm", CALM, facednerf={"calm": "facednerf_calm"})
    lines = ["seed = 5", 'guidance = "calm"', "steps = {edit = 9, tune = 9}", "frames = 4", "[weights]", "identity = 0.7"]
    Path("mine.toml").write_text("\n".join(lines))
    words = (
        "--config",
        "mine.toml",
        *SHORT,
        "--steps",
        "edit=1",
        "--weight",
        "guidance=2",
        "--weight",
        "edit.guidance=0.5",
        "--out",
        "out",
        "--json",
    )
    code, out, err = fdn("edit", photo, "blue hair", *words)
    assert code == 0, err
    recipe = json.loads(Path("out/run.json").read_text())["recipe"]
    assert (recipe["seed"], recipe["guidance"], recipe["frames"]) == (5, "calm", 0)
    assert recipe["steps"] == {"edit": 1, "tune": 0, "invert": 1, "refine": 0}
    assert recipe["weights"] == {"identity": 0.7, "guidance": 2.0}
    assert recipe["stage_weights"] == {"edit": {"guidance": 0.5}}
    assert json.loads(out)["files"]["after.png"] == "out/after.png"
    assert err == ""


def test_a_folder_that_holds_something_else_is_refused(fdn: Fdn, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    refused(fdn("edit", photo, "blue hair", "--out", tmp_path / "mine"), "is not empty")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_run_is_not_written_over(fdn: Fdn, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "run.json").write_text("{}")
    refused(fdn("edit", photo, "blue hair", "--out", tmp_path / "mine"), "already holds a run", "fdn resume")


def test_a_folder_that_cannot_be_made_is_one_message(fdn: Fdn, photo: Path) -> None:
    refused(fdn("edit", photo, "blue hair", "--out", photo / "run"), "is a file, not a folder")
    refused(fdn("edit", photo, "blue hair", "--out", photo), "is a file, not a folder")
    refused(fdn("edit", photo, "blue hair", "--out", "x" * 300), "the name is too long")


def test_what_is_no_run_cannot_be_gone_on_with(fdn: Fdn, photo: Path, tmp_path: Path) -> None:
    refused(fdn("resume", tmp_path / "nowhere"), "is not a run")
    refused(fdn("resume", photo), "is not a run")
    refused(fdn("resume", tmp_path), "is not a run", "fdn edit")
    assert not (tmp_path / ".lock").exists()


@pytest.fixture
def full_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A disk on which so many more files can be written whole, and no more."""

    def fill(files: int) -> None:
        left = [files]

        def fsync(number: int) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("facednerf_core.files.os.fsync", fsync)

    return fill


@pytest.mark.parametrize("files", [0, 1])
def test_a_full_disk_leaves_nothing_half_written(files: int, fdn: Fdn, photo: Path, full_after) -> None:
    full_after(files)
    refused(fdn("invert", photo, *SHORT, "--out", "out/deep/down"), "the disk is full")
    Path("kept").mkdir()
    refused(fdn("invert", photo, *SHORT, "--out", "kept"), "the disk is full")
    assert list(Path("kept").iterdir()) == []


def test_a_disk_that_fills_up_keeps_what_was_saved(fdn: Fdn, photo: Path, full_after, monkeypatch) -> None:
    full_after(5)
    code, out, err = fdn("invert", photo, *SHORT, "--out", "run")
    assert (code, out) == (2, "")
    assert "the disk is full" in err
    assert "Traceback" not in err
    assert not list(Path("run").glob(".*part*"))
    monkeypatch.undo()
    monkeypatch.chdir(photo.parent)
    assert fdn("resume", "run")[0] == 0
    assert Path("run/inverted.png").exists()


def test_ctrl_c_saves_and_says_how_to_go_on(fdn: Fdn, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from facednerf_core import loop

    steps = loop.optimize

    def interrupted(*given):
        yield next(steps(*given))
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "optimize", interrupted)
    code, out, err = fdn("invert", photo, *SHORT, "--steps", "refine=3", "--out", "run")
    assert (code, out) == (130, "")
    assert "go on with: fdn resume run" in err
    assert json.loads(Path("run/run.json").read_text())["status"] == "stopped"
    monkeypatch.setattr(loop, "optimize", steps)
    code, out, err = fdn("resume", "run")
    assert code == 0, err
    assert "from invert step 1" in err


def test_a_lack_of_memory_before_the_run_leaves_nothing(fdn: Fdn, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*given):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(compose, "build", build)
    refused(fdn("edit", photo, "blue hair", "--out", "out"), "out of memory. Lower --size")


@pytest.mark.parametrize("kind", ["grey", "alpha", "turned", "deep", "cmyk"])
def test_photos_of_every_kind_become_portraits(kind: str, astronaut: np.ndarray, tmp_path: Path) -> None:
    upright = Image.fromarray(astronaut)
    path = tmp_path / f"{kind}.png"
    if kind == "grey":
        upright.convert("L").save(path)
    elif kind == "alpha":
        upright.putalpha(255)
        upright.save(path)
    elif kind == "turned":
        path = path.with_suffix(".jpg")
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned clockwise
        upright.rotate(90, expand=True).save(path, exif=exif, quality=95)
    elif kind == "deep":
        Image.fromarray(np.asarray(upright.convert("L")).astype(np.uint16) * 257).save(path)
    else:
        path = path.with_suffix(".tif")
        upright.convert("CMYK").save(path)
    shelves = installed()
    plan = plans.plan(Recipe(task="invert", photo=str(path)), shelves, Registry(shelves.weights))
    detector, orbit = plan.detector.build(torch.device("cpu")), plans.orbit(plan.scene)
    portrait = photos.portrait(photos.read(path), detector, Framing.of(plan.scene.crop), orbit, (64, 64))
    Image.fromarray(astronaut).save(tmp_path / "plain.png")
    plain = photos.portrait(photos.read(tmp_path / "plain.png"), detector, Framing.of(plan.scene.crop), orbit, (64, 64))
    assert portrait.image.shape == (1, 1, 3, 64, 64)
    grey = (portrait.image.mean(dim=2) - plain.image.mean(dim=2)).abs().mean()
    assert grey < 0.08, "the same face in the same place"
    assert portrait.mask is not None
