"""The judge of sentences: on heads of the world, of which a sentence is true or not."""

from __future__ import annotations

from pathlib import Path

import pytest
from facednerf_starter.judges.listener import Listener
from facednerf_starter.plugin import FOLDER
from facednerf_starter.world.attributes import decode, draw
from facednerf_starter.world.cameras import draw_cameras
from facednerf_starter.world.render import render

from facednerf_core.errors import MissingWeights

CHANGES = {
    "a person with glasses": {"glasses": ("yes", "no")},
    "a person with a beard": {"beard": ("beard", "none")},
    "a person with blue hair": {"hair_color": ("blue", "black"), "hair_style": ("long", "long")},
    "a person with a hat": {"hat": ("yes", "no")},
    "a bald person": {"hair_style": ("bald", "long")},
}


def test_a_picture_is_nearer_to_the_sentence_that_is_true_of_it() -> None:
    listener = Listener.from_folder(FOLDER)
    people = decode(draw(4321, 0, 3)).replace(hat="no", hair_style="short")
    cameras = draw_cameras(4321, 0, 3, 1, 0.3, 0.1)
    for sentence, changes in CHANGES.items():
        true, false = (
            [
                listener.agreement(render(head, camera[None], 128).image[0], sentence)
                for head, camera in zip(
                    [people.replace(**{name: words[which] for name, words in changes.items()})[[i]] for i in range(3)],
                    cameras,
                    strict=True,
                )
            ]
            for which in (0, 1)
        )
        assert sum(one > other for one, other in zip(true, false, strict=True)) >= 2, sentence
        assert sum(true) > sum(false) + 0.1, sentence


def test_without_its_folder_it_says_how_to_train_it(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match="clip --judge"):
        Listener.from_folder(tmp_path)
