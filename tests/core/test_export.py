from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from facednerf_core import export, files
from facednerf_core.errors import InputError
from facednerf_core.scene import Rendering, Scene
from facednerf_core.views import Orbit

ORBIT = Orbit()
ROUND = Orbit(yaw=3.1416)


def opened(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_bytes_are_rounded_and_cut_off():
    levels = torch.tensor([-3.0, -1.0, -1 + 1.4 / 127.5, -1 + 1.6 / 127.5, 0.999, 1.0, 2.0])
    image = levels.expand(2, 3, 1, 7)
    assert export.pixels(image).shape == (2, 1, 7, 3)
    assert export.pixels(image)[0, 0, :, 0].tolist() == [0, 0, 1, 2, 255, 255, 255]


def test_a_still_read_back_is_what_was_written(tmp_path: Path):
    image = torch.rand(1, 1, 3, 20, 31) * 2 - 1
    export.still(tmp_path / "a.png", image.requires_grad_())
    assert (opened(tmp_path / "a.png") == export.pixels(image[0, 0])).all()


def rendering(mask: torch.Tensor | None, views: int = 2) -> Rendering:
    person = torch.full((1, views, 3, 16, 16), 0.2)
    through = 1 - (torch.zeros(1) if mask is None else mask)
    return Rendering(Scene(), ORBIT.view(*[(0.0, 0.0)] * views), person * (1 - through) + through, mask=mask)


def test_another_background_is_exact():
    mask = torch.rand(1, 2, 1, 16, 16)
    behind = torch.rand(1, 1, 3, 16, 16) * 2 - 1
    out = export.on_background(rendering(mask), "white", behind)
    assert torch.allclose(out, 0.2 * mask + behind * (1 - mask), atol=1e-6)


def test_a_smaller_mask_is_scaled_up():
    mask = torch.zeros(1, 2, 1, 4, 4)
    mask[..., 2:] = 1
    drawn = Rendering(Scene(), ORBIT.view((0.0, 0.0), (0.1, 0.0)), torch.ones(1, 2, 3, 16, 16), mask=mask)
    out = export.on_background(drawn, "white", torch.full((1, 1, 3, 1, 1), -0.5))
    assert torch.allclose(out[..., 0], torch.tensor(-0.5))
    assert torch.allclose(out[..., -1], torch.tensor(1.0))


def test_a_finished_image_is_left_alone():
    drawn = rendering(torch.rand(1, 2, 1, 16, 16))
    behind = torch.zeros(1, 1, 3, 16, 16)
    assert export.on_background(drawn, "own", behind) is drawn.image
    assert export.on_background(drawn, "white", None) is drawn.image
    bare = rendering(None)
    assert export.on_background(bare, "black", behind) is bare.image


def test_the_backdrop_has_the_backgrounds_colours_and_is_quiet():
    background = torch.tensor([0.5, -0.2, 0.1]).view(1, 1, 3, 1, 1) + 0.3 * torch.randn(1, 1, 3, 64, 64)
    drop = export.backdrop(background, (40, 24))
    assert drop.shape == (1, 1, 3, 40, 24)
    assert torch.allclose(drop.mean((3, 4))[0, 0], torch.tensor([0.5, -0.2, 0.1]), atol=0.12)
    assert drop.diff(dim=-1).abs().max() < 0.05
    assert export.backdrop(None, (8, 8)).std() < 0.1


def test_the_film_loops_smoothly_within_the_orbit():
    path = np.array(export.turntable_angles(ORBIT, 48))
    assert np.abs(path[:, 0]).max() <= ORBIT.yaw
    assert np.abs(path[:, 0]).max() > 0.8 * ORBIT.yaw
    assert np.abs(path[:, 1]).max() <= ORBIT.pitch
    steps = np.linalg.norm(np.diff(np.concatenate([path, path[:1]]), axis=0), axis=1)
    assert steps[-1] <= steps[:-1].max()
    assert steps.max() < 0.1


def test_a_film_all_round_goes_once_round_the_head():
    path = np.array(export.turntable_angles(ROUND, 48))
    assert path[0, 0] == 0
    assert path[0, 1] > 0
    assert abs(path[24, 0]) == pytest.approx(np.pi)
    assert path[12, 0] == pytest.approx(np.pi / 2)
    assert np.abs(path[:, 0]).max() <= np.pi
    assert 0.1 * ROUND.pitch < np.abs(path[:, 1]).max() <= 0.5 * ROUND.pitch
    closed = np.concatenate([path, path[:1]])
    turned = (np.diff(closed[:, 0]) + np.pi) % (2 * np.pi) - np.pi
    assert turned == pytest.approx(2 * np.pi / 48), "one way, at one speed, and on from the last frame to the first"
    assert np.abs(np.diff(closed[:, 1])).max() < 0.03


def test_an_orbit_in_between_keeps_the_ellipse():
    for of in (lambda orbit: export.turntable_angles(orbit, 8), export.sheet_angles):
        assert np.array(of(Orbit(yaw=1.2))) == pytest.approx(np.array(of(ORBIT)) * (2, 1))


def test_a_sheet_all_round_shows_every_side():
    names = [export.angle_name(*pair) for pair in export.sheet_angles(ROUND)]
    assert names[:5] == ["135° left", "90° left", "45° left", "front", "45° right"]
    assert names[5:8] == ["90° right", "135° right", "back"]
    assert [name.split("° ")[1] for name in names[8:]] == ["above", "below"]


@pytest.mark.parametrize(
    ("yaw", "pitch", "name"),
    [
        (np.pi, 0.0, "back"),
        (-np.pi, 0.0, "back"),
        (3.1416, 0.2, "back, 11° above"),
        (2.3562, 0.0, "135° right"),
        (3 * np.pi / 2, 0.0, "90° left"),
        (2 * np.pi, 0.0, "front"),
    ],
)
def test_what_lies_behind_is_named(yaw: float, pitch: float, name: str):
    assert export.angle_name(yaw, pitch) == name


def test_the_columns_of_a_sheet_are_named():
    names = [export.angle_name(*pair) for pair in export.sheet_angles(ORBIT)]
    assert names[2] == "front"
    assert "left" in names[0]
    assert "right" in names[4]
    assert "above" in names[5]
    assert export.angle_name(0.5236, -0.2618) == "30° right, 15° below"
    assert len(set(names)) == len(names)


def test_a_sheet_shows_each_row_and_column(tmp_path: Path):
    angles = export.sheet_angles(ORBIT)
    shades = torch.linspace(-1, 1, len(angles)).view(-1, 1, 1, 1).expand(-1, 3, 32, 32)
    export.contact_sheet(tmp_path / "a.png", {"inverted": shades, "after": -shades}, angles, "a sentence " * 30, "seed 0")
    page = opened(tmp_path / "a.png")
    height, width = page.shape[:2]
    assert width > len(angles) * export.CELL
    bottom = height - export.MARGIN - 22 - export.GAP - export.CELL // 2
    for row, sign in ((1, -1), (0, 1)):
        y = bottom - (1 - row) * (export.CELL + export.GAP)
        for column in range(len(angles)):
            x = width - export.MARGIN - export.CELL // 2 - (len(angles) - 1 - column) * (export.CELL + export.GAP)
            level = (sign * float(shades[column, 0, 0, 0]) + 1) * 127.5
            assert page[y, x, 0] == pytest.approx(level, abs=1), (row, column)
    assert (page[:, -export.MARGIN + 2 :] == export.PAPER).all()  # a long title is broken into lines
    assert (page[export.MARGIN : export.MARGIN + 64].min(-1) < 100).any()


def test_a_sheet_of_tall_pictures_keeps_their_shape(tmp_path: Path):
    angles = export.sheet_angles(ORBIT)
    export.contact_sheet(tmp_path / "a.png", {"": torch.zeros(len(angles), 3, 64, 32)}, angles)
    page = opened(tmp_path / "a.png")
    shown = (page[export.MARGIN + export.CELL // 2] == 128).all(1).sum()
    assert shown == pytest.approx(len(angles) * export.CELL / 2, abs=len(angles))
    assert page.shape[0] < export.CELL + 4 * export.MARGIN


def test_before_and_after_side_by_side(tmp_path: Path):
    shown = {"photo": torch.full((3, 64, 48), -1.0), "after": torch.zeros(1, 1, 3, 64, 48)}
    export.comparison(tmp_path / "a.png", shown)
    page = opened(tmp_path / "a.png")
    middle = page[export.MARGIN + 160]
    assert (middle == 0).all(1).sum() == pytest.approx(240, abs=3)
    assert (middle == 128).all(1).sum() == pytest.approx(240, abs=3)


@pytest.mark.parametrize(("size", "film"), [((64, 64), (512, 512)), ((33, 21), (528, 336)), ((540, 301), (540, 300))])
def test_a_film_read_back(tmp_path: Path, size, film):
    frames = [torch.full((3, *size), level) for level in np.linspace(-0.8, 0.8, 6)]
    export.turntable(tmp_path / "a.mp4", iter(frames), fps=12)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == 12
        levels = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert [level.shape for level in levels] == [(*film, 3)] * 6
    assert [float(level.mean()) for level in levels] == pytest.approx(
        [float(export.pixels(frame).mean()) for frame in frames], abs=3
    )


def test_a_film_that_is_interrupted_leaves_nothing(tmp_path: Path):
    def frames():
        yield torch.zeros(3, 16, 16)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export.turntable(tmp_path / "a.mp4", frames())
    with pytest.raises(ValueError, match="frame"):
        export.turntable(tmp_path / "a.mp4", iter([]))
    assert not list(tmp_path.iterdir())


def test_pictures_that_cannot_be_written_are_said(tmp_path: Path, monkeypatch):
    (tmp_path / "file").write_text("")
    image = torch.zeros(3, 16, 16)
    with pytest.raises(InputError, match=r"cannot write .*a\.png"):
        export.still(tmp_path / "file" / "a.png", image)
    with pytest.raises(InputError, match=r"cannot write .*a\.mp4"):
        export.turntable(tmp_path / "gone" / "a.mp4", [image])

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(InputError, match="full"):
        export.still(tmp_path / "a.png", image)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
