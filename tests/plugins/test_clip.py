"""Guidance by a CLIP: its loss and direction, crops, the region of a sentence, prompts, and folders."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from facednerf_clip.crops import Crops
from facednerf_clip.encoder import Encoder, load
from facednerf_clip.guidance import ClipGuidance
from facednerf_clip.options import ClipOptions
from facednerf_clip.plugin import build
from safetensors.torch import save_file
from torch import Tensor

from facednerf_core.cards import LocalWeights, WeightsCard
from facednerf_core.compute import rng
from facednerf_core.errors import InputError, MissingWeights
from facednerf_core.resampling import resized
from tests.smooth import draw, gradient, he, latent, spread, step, subject

WORDS = ("a", "man", "with", "glasses", "blue", "hair", "an", "old", "young", "woman")
FRONT = subject()
CPU = torch.device("cpu")


def write_folder(folder: Path, words: tuple[str, ...] = WORDS) -> Path:
    """An open_clip folder of a tiny random network, with a closed vocabulary."""
    from open_clip.model import CLIP

    torch.manual_seed(0)
    merges, tokens = [], [*"abcdefghijklmnopqrstuvwxyz'", *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz'")]
    for word in words:
        for end in range(2, len(word) + 1):
            last = "</w>" if end == len(word) else ""
            merges.append(f"{word[: end - 1]} {word[end - 1]}{last}")
            tokens.append(word[:end] + last)
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(dict.fromkeys(merges)) + "\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 12, "unk_token": "<|endoftext|>", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "vocabulary.txt").write_text("\n".join(words))
    text = {"context_length": 12, "vocab_size": len(tokens), "width": 8, "heads": 2, "layers": 1}
    model = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 16, "head_width": 8, "layers": 1},
        "text_cfg": {**text, "hf_tokenizer_name": "here"},
    }
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7]}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": preprocess}))
    network = he(CLIP(8, model["vision_cfg"], text))
    save_file({name: value.half() for name, value in network.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return load(folder, CPU)


class Pointers(Encoder):
    """Sentences are axes of the space; a picture's vector is its mean colour."""

    def __init__(self, size: int = 16) -> None:
        self.size, self.vocabulary = size, frozenset()

    def pictures(self, image: Tensor) -> Tensor:
        return torch.nn.functional.normalize(image.mean((-2, -1)), dim=-1)

    def sentence(self, text: str) -> Tensor:
        return torch.eye(3)[("red", "green", "blue").index(text)]


def test_a_picture_is_read_as_open_clip_reads_it(folder: Path, encoder: Encoder) -> None:
    import open_clip
    from PIL import Image

    network, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    pixels = (torch.rand(32, 32, 3) * 255).byte()
    with torch.no_grad():
        expected = network.eval().encode_image(preprocess(Image.fromarray(pixels.numpy())).unsqueeze(0), normalize=True)
        found = encoder.pictures((pixels.permute(2, 0, 1).float() / 127.5 - 1).expand(1, 2, 3, -1, -1))
    assert found.shape == (1, 2, 8)
    assert torch.allclose(found[0], expected.expand(2, -1), atol=1e-5)


def test_a_sentence_is_read_as_open_clip_reads_it(folder: Path, encoder: Encoder) -> None:
    import open_clip

    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(["a man with glasses"])
    with torch.no_grad():
        expected = encoder.network.encode_text(tokens, normalize=True)[0]
    assert torch.allclose(encoder.sentence("a man with glasses"), expected)
    assert not encoder.sentence("blue hair").requires_grad


def test_the_loss_is_one_less_the_cosine() -> None:
    loss = ClipGuidance(Pointers(), ClipOptions(noise=0.0)).aim("red", FRONT)
    rendering = draw(latent(), 64)
    for colour, expected in (((1.0, 0.0, 0.0), 0.0), ((0.0, 1.0, 0.0), 1.0), ((-1.0, 0.0, 0.0), 2.0)):
        image = torch.tensor(colour).view(1, 1, 3, 1, 1).expand(1, 1, 3, 64, 48)
        found = loss(replace(rendering, image=image), step(latent()))
        assert float(found.value.detach()) == pytest.approx(expected, abs=1e-5)
        assert found.metrics["cosine"] == pytest.approx(1 - expected, abs=1e-5)


def test_a_negative_prompt_is_led_away_from() -> None:
    guidance = ClipGuidance(Pointers(), ClipOptions())
    half = 0.5**0.5
    assert torch.allclose(guidance.direction("red", negative="green"), torch.tensor([half, -half, 0.0]))
    both = guidance.direction("red", "green", "blue")
    assert both[1] == both[2]
    assert both[1] < 0
    plain = ClipGuidance(Pointers(), ClipOptions(directional=False))
    assert torch.equal(plain.direction("red", "green"), torch.tensor([1.0, 0.0, 0.0]))


def test_with_a_source_prompt_only_the_way_counts() -> None:
    """From green to red is the way asked for; its length counts as long as it is not far above the floor."""
    loss = ClipGuidance(Pointers(), ClipOptions(noise=0.0, floor=0.1)).aim("red", FRONT, source_prompt="green")
    rendering = draw(latent(), 64)

    def verdict(colour: tuple[float, float, float]) -> float:
        before, now = (
            replace(rendering, image=torch.tensor(one).view(1, 1, 3, 1, 1).expand(1, 1, 3, 64, 64))
            for one in ((0.0, 1.0, 0.0), colour)
        )
        return float(loss(now, replace(step(latent()), reference=before)).value)

    assert verdict((0.0, 1.0, 0.0)) == pytest.approx(1.0)
    assert verdict((1.0, 0.0, 0.0)) < 0.01
    assert verdict((0.1, 1.0, 0.0)) < verdict((0.05, 1.0, 0.0)) < 1
    assert verdict((0.0, 0.0, 1.0)) > 0.4


def test_where_an_edit_begins_the_gradient_is_finite_and_points_the_way(encoder: Encoder) -> None:
    """The rendering is the reference there, and their difference has no direction."""
    loss = ClipGuidance(encoder, ClipOptions()).aim("blue hair", FRONT, source_prompt="a man")
    of = latent()
    of.w.requires_grad_()
    rendering = draw(of, 64)
    found = loss(rendering, replace(step(of), reference=draw(latent(), 64)))
    assert float(found.value.detach()) == pytest.approx(1.0, abs=1e-4)
    assert found.metrics["moved"] < 1e-4
    found.value.sum().backward()
    assert of.w.grad is not None
    assert of.w.grad.isfinite().all()
    assert float(of.w.grad.norm()) > 0
    with pytest.raises(ValueError, match="against"):
        loss(rendering, step(of))
    with pytest.raises(ValueError, match="look"):
        loss(None, step(of))


def test_one_normalisation(encoder: Encoder) -> None:
    guidance = ClipGuidance(encoder, ClipOptions())
    assert spread(guidance.aim("blue hair", FRONT)) < 0.2
    assert spread(guidance.aim("blue hair", FRONT, source_prompt="a man"), reference=latent(3)) < 0.2


def test_value_is_per_subject_and_reproducible(encoder: Encoder) -> None:
    loss = ClipGuidance(encoder, ClipOptions()).aim("a man", FRONT)
    pair = latent(subjects=2)
    pair.w.data[1] = pair.w.data[0]
    image = draw(pair, 64, views=2)
    value = loss(image, step(pair)).value
    assert value.shape == (2,)
    assert torch.allclose(value[0], value[1], rtol=1e-4)
    assert torch.equal(value, loss(image, step(pair)).value)
    assert not torch.equal(value, loss(image, step(pair, index=1)).value)


def test_the_source_prompt_is_left_aside_where_the_options_say_so(encoder: Encoder) -> None:
    plain = ClipGuidance(encoder, ClipOptions(directional=False))
    with_source = plain.aim("blue hair", FRONT, source_prompt="a man")
    assert torch.equal(gradient(with_source, 64), gradient(plain.aim("blue hair", FRONT), 64))


def test_crops_lie_within_the_picture_and_are_drawn_from_the_rng() -> None:
    across = torch.linspace(-1, 1, 48).expand(1, 1, 3, 64, 48)
    crops = Crops.draw(1, 32, 16, rng(0), smallest=0.5, mirror=True)
    found = crops.of(across)
    assert found.shape == (1, 1, 32, 3, 16, 16)
    assert found.abs().max() <= 1
    slopes = found[0, 0, :, 0, 0, -1] - found[0, 0, :, 0, 0, 0]
    assert 0 < int((slopes < 0).sum()) < 32  # half are mirrored
    spans = slopes.abs() / (2 * 15 / 16)
    assert torch.allclose(spans, crops.side[0], atol=0.05)
    assert torch.equal(found, Crops.draw(1, 32, 16, rng(0), smallest=0.5, mirror=True).of(across))
    assert not torch.equal(found, Crops.draw(1, 32, 16, rng(1), smallest=0.5, mirror=True).of(across))


def test_the_largest_crop_of_a_square_picture_is_the_picture() -> None:
    image = torch.rand(1, 2, 3, 16, 16)
    found = Crops.draw(2, 3, 16, rng(0)).of(image)
    assert torch.allclose(found, image.unsqueeze(2).expand(-1, -1, 3, -1, -1, -1), atol=1e-5)
    noisy = Crops.draw(2, 3, 16, rng(0), noise=0.1).of(image)
    assert float((noisy - found).std()) == pytest.approx(0.1, rel=0.1)


def test_the_region_of_a_sentence_is_where_its_gradient_is() -> None:
    class Corner(Pointers):
        def pictures(self, image: Tensor) -> Tensor:
            return image[..., :8, :8].square().mean((-2, -1))  # there alone it looks

    guidance = ClipGuidance(Corner(32), ClipOptions(smallest=1.0))
    person = replace(FRONT, image=torch.rand(1, 1, 3, 64, 64) + 0.5)
    found = guidance.region("red", person, source_prompt="green")
    assert found is not None
    assert found.shape == (1, 1, 32, 32)
    assert float(found[..., :7, :7].min()) > 0.5
    assert float(found[..., 16:, :].max()) == 0.0
    assert guidance.region("red", person) is None  # nothing to differ from
    assert guidance.region("red", replace(FRONT, image=None), source_prompt="green") is None


def test_pictures_are_scored_by_the_sentences_direction(encoder: Encoder) -> None:
    guidance = ClipGuidance(encoder, ClipOptions())
    pictures = torch.rand(70, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = guidance.score(pictures, "red", source_prompt="green")
    assert found.shape == (70,)
    assert found.std() > 0
    assert torch.allclose(found, -guidance.score(pictures, "green", source_prompt="red"), atol=1e-5)
    seen = encoder.pictures(resized(pictures[66:67], (encoder.size, encoder.size)))
    assert torch.allclose(found[66:67], seen @ guidance.direction("red", "green"), atol=1e-5)


def test_words_outside_a_closed_vocabulary_are_named(encoder: Encoder) -> None:
    guidance = ClipGuidance(encoder, ClipOptions())
    assert guidance.unknown_words("A man's glasses, with Sombrero and sombrero!") == ("sombrero", "and")
    assert ClipGuidance(Encoder(encoder.network, encoder.tokenizer), ClipOptions()).unknown_words("sombrero") == ()


def test_long_prompts_are_counted_and_never_cut(encoder: Encoder) -> None:
    guidance = ClipGuidance(encoder, ClipOptions())
    assert guidance.longest_prompt("a man with glasses") == (6, 12)
    with pytest.raises(InputError, match="13 tokens and clip reads 12"):
        guidance.aim("a " * 11, FRONT)


def test_open_clips_own_tokenizer_counts_too(folder: Path, encoder: Encoder) -> None:
    import open_clip

    other = Encoder(encoder.network, open_clip.get_tokenizer("ViT-B-32"))
    assert other.length("a man with glasses") == (6, 77)


def test_card_builds_from_a_folder_and_says_what_is_missing(folder: Path, tmp_path: Path) -> None:
    card = WeightsCard("clip/test", "clip", "guidance", "test", "tiny")
    guidance = build(CPU, LocalWeights(card, {"model": folder}), crops=2)
    assert isinstance(guidance, ClipGuidance)
    assert guidance.options.crops == 2
    with pytest.raises(MissingWeights):
        build(CPU, None)
    with pytest.raises(InputError, match="has no open_clip_config"):
        load(tmp_path, CPU)
    shutil.copytree(folder, tmp_path / "bare")
    (tmp_path / "bare" / "open_clip_model.safetensors").rename(tmp_path / "bare" / "open_clip_pytorch_model.bin")
    with pytest.raises(InputError, match="safetensors only"):
        load(tmp_path / "bare", CPU)


def test_a_folder_that_cannot_be_read_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "other")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["embed_dim"] = 9
    (tmp_path / "other" / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="cannot read the CLIP"):
        load(tmp_path / "other", CPU)


@pytest.mark.parametrize("wrong", [{"floor": 0.0}, {"crops": 0}, {"smallest": 1.5}, {"noise": -1.0}])
def test_options_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        ClipOptions(**wrong)  # type: ignore[arg-type]


def test_listing_the_plugins_imports_no_heavy_library() -> None:
    code = "import sys, facednerf_clip.plugin as p; p.register_guidances(print); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "open_clip", "transformers"} & set(found)
