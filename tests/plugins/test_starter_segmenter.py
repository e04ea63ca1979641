"""The segmenter of the starter's detector: its published weights give what the published network gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from facednerf_starter.detector.segmenter import SIZE, PersonSegmenter
from facednerf_starter.plugin import FOLDER
from facednerf_starter.train.__main__ import main

from facednerf_core import statedicts

PUBLISHED = (  # per mille, in 8 x 8 fields: MediaPipe 0.10.14 itself, on the same 256 pixels of the astronaut
    (0, 0, 2, 315, 464, 115, 0, 0),
    (0, 37, 695, 1000, 1000, 954, 119, 0),
    (0, 192, 1000, 1000, 1000, 1000, 384, 0),
    (0, 39, 844, 1000, 1000, 974, 182, 0),
    (0, 45, 480, 1000, 1000, 378, 0, 0),
    (165, 944, 1000, 1000, 1000, 219, 0, 0),
    (655, 1000, 1000, 1000, 1000, 958, 179, 0),
    (1000, 1000, 1000, 1000, 1000, 1000, 539, 6),
)


@pytest.fixture(scope="module")
def segmenter() -> PersonSegmenter:
    network = PersonSegmenter()
    network.load_state_dict(statedicts.read(FOLDER / "segmenter.safetensors"))
    return network.eval()


@torch.no_grad()
def test_it_says_of_the_astronaut_what_the_published_network_says(segmenter: PersonSegmenter) -> None:
    photo = skimage.data.astronaut()[:SIZE, 96 : 96 + SIZE]
    mask = segmenter(torch.from_numpy(photo / 255).float().permute(2, 0, 1)[None]).sigmoid()
    assert mask.shape == (1, 1, SIZE, SIZE)
    fields = mask.reshape(8, 32, 8, 32).mean((1, 3)).numpy()
    assert np.abs(fields - np.array(PUBLISHED) / 1000).max() < 2e-3


@torch.no_grad()
def test_pictures_do_not_see_each_other(segmenter: PersonSegmenter) -> None:
    pair = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    assert (segmenter(pair)[:1] - segmenter(pair[:1])).abs().max() < 1e-3


def test_a_file_that_is_no_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "selfie.tflite"
    wrong.write_bytes(b"not a model")
    with pytest.raises(SystemExit) as ended:
        main(["segmenter", str(wrong), "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "no TensorFlow Lite model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
