"""Training in pieces, shards, device-independent draws, the tokenizer, and the diffusion recipes, at toy widths."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from facednerf_starter.train import autoencoder, diffusion, draws, phrasing, pipeline, tokenizer
from facednerf_starter.train.capture import adamw_of
from facednerf_starter.train.pieces import Piece, PieceError, rate, set_rate
from facednerf_starter.train.sayings import SENTENCES, sayings
from facednerf_starter.train.shards import Shards, ShardsError
from facednerf_starter.world import attributes, captions
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from facednerf_core.errors import InputError

SIZE, VIEWS, HEADS = 32, 2, 6
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of discs in plain colours, captioned."""
    root = tmp_path_factory.mktemp("shards")
    across = np.linspace(-1, 1, SIZE)
    mask = (across[:, None] ** 2 + across**2 < 0.5).astype(np.float32)
    for number in range(2):
        folder = root / f"shard-{number:04d}"
        folder.mkdir()
        colour = np.random.default_rng(number).random((HEADS, VIEWS, 1, 1, 3))
        image = (1 - mask)[..., None] + mask[..., None] * colour
        np.save(folder / "z.npy", attributes.draw(0, HEADS * number, HEADS).numpy())
        np.save(folder / "image.npy", (image * 255).round().astype(np.uint8))
        np.save(folder / "mask.npy", np.broadcast_to((mask * 255).astype(np.uint8), (HEADS, VIEWS, SIZE, SIZE)))
        said = [["a man with a beard", "glasses", "blue hair", "an old woman"]] * HEADS
        (folder / "captions.json").write_text(json.dumps(said))
        index = {"seed": 0, "first": HEADS * number, "count": HEADS, "views": VIEWS, "size": SIZE}
        (folder / "index.json").write_text(json.dumps(index))
    return root


def arguments(data: Path, out: Path, steps: int = 6) -> argparse.Namespace:
    return argparse.Namespace(
        data=data,
        out=out,
        minutes=1.0,
        device="cpu",
        seed=3,
        steps=steps,
        total=None,
        batch=2,
        rate=8e-4,
        held=5,
        tiny=True,
        autoencoder=None,
        start=None,
    )


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    whole = Piece.run
    monkeypatch.setattr(Piece, "run", lambda self, one, minutes, **kw: whole(self, one, minutes, at_most=steps, **kw))


def test_draws_are_a_function_of_their_key_and_look_random() -> None:
    at = draws.key(0, "noise", 7)
    noise = draws.normal((100_001,), at)
    assert torch.equal(noise, draws.normal((100_001,), at))
    assert not torch.equal(noise, draws.normal((100_001,), draws.key(0, "noise", 8)))
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02
    assert abs(float((noise[:-1] * noise[1:]).mean())) < 0.02
    counts = torch.bincount(draws.integers((60_000,), 6, at), minlength=6)
    assert counts.min() > 9_500
    assert counts.max() < 10_500


def test_draws_are_plain_32_bit_arithmetic() -> None:
    """So they are equal on every device, and to Python's own integers."""

    def finalise(word: int) -> int:
        word = ((word ^ (word >> 16)) * 0x7FEB352D) % 2**32
        word = ((word ^ (word >> 15)) * 0x846CA68B) % 2**32
        return word ^ (word >> 16)

    first, second = at = draws.key(1, "golden")
    expected = [finalise((finalise((counter + first) % 2**32) + second) % 2**32) for counter in range(200)]
    assert draws.words((200,), at).tolist() == expected
    assert expected[:3] == [3032456053, 1913583073, 3192680747]


def test_fields_give_the_same_entries_as_the_whole_arrays(data: Path) -> None:
    shards = Shards(data, held_every=5)
    whole = np.concatenate([np.load(path / "image.npy") for path in shards.paths])
    heads, views = torch.tensor([11, 0, 6, 6]), torch.tensor([1, 0, 0, 1])
    field = shards.field("image")
    assert torch.equal(field.take(heads, views), torch.from_numpy(whole)[heads, views])
    assert torch.equal(field.take(heads), torch.from_numpy(whole)[heads])
    many = views[:, None].expand(4, 3)
    assert torch.equal(field.take(heads, many), torch.from_numpy(whole)[heads[:, None].expand(4, 3), many])
    assert shards.held.tolist() == [4, 9]
    assert sorted([*shards.training.tolist(), *shards.held.tolist()]) == list(range(12))


def test_shards_say_what_is_missing(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardsError, match="train data"):
        Shards(tmp_path)
    with pytest.raises(ShardsError, match="too few"):
        Shards(data, held_every=50)
    with pytest.raises(ShardsError, match=r"no 'depth.npy'.*image, mask"):
        Shards(data, held_every=5).field("depth")


def _small(out: Path, *, steps: int | None = 9, width: int = 3) -> tuple[Piece, object]:
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, width, 3).to(memory_format=torch.channels_last)
    adam = torch.optim.AdamW(network.parameters(), lr=1e-2)
    piece = Piece(
        out,
        "small",
        seed=0,
        steps=steps,
        networks={"network": network},
        optimizers={"adam": adam},
        averaged=("network",),
        settings={"width": width},
    )

    def one_step(step: int) -> dict[str, torch.Tensor]:
        set_rate(adam, 1e-2 * rate(step, piece.steps, warm=3))
        loss = (network(draws.normal((2, 3, 8, 8), draws.key(0, "x", step))) - 1).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        return {"loss": loss.detach()}

    return piece, one_step


def test_a_piece_refuses_other_settings_and_keeps_its_state_when_a_loss_breaks(tmp_path: Path) -> None:
    piece, one_step = _small(tmp_path)
    assert not piece.run(one_step, 1.0, at_most=4)
    before = piece.path.read_bytes()
    with pytest.raises(PieceError, match="width 3 -> 4"):
        _small(tmp_path, width=4)
    piece, _ = _small(tmp_path)
    with pytest.raises(PieceError, match="'loss' is nan"):
        piece.run(lambda step: {"loss": torch.tensor(float("nan"))}, 1.0, every=2)
    assert piece.path.read_bytes() == before


def test_what_preparation_took_is_no_time_for_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    piece, one_step = _small(tmp_path)
    assert not piece.run_rest(one_step, 1.0, time.monotonic() - 61)
    assert piece.step == 0
    assert "prepared in 61 s" in capsys.readouterr().out
    assert piece.run_rest(one_step, 5.0, time.monotonic() - 61), "four minutes are enough for all steps"


def test_the_clock_sets_the_steps_and_the_rate_falls_to_their_end(tmp_path: Path) -> None:
    piece, one_step = _small(tmp_path, steps=None)
    piece.run(one_step, 0.01, every=1000)
    assert piece.steps is not None
    again, _ = _small(tmp_path, steps=None)
    assert (again.step, again.steps) == (piece.step, piece.steps)
    assert rate(0, None, warm=10) == pytest.approx(0.1)
    assert rate(10**9, None) == 1.0
    assert rate(600, 1000) == 1.0
    assert 0 < rate(900, 1000) < 0.5
    assert rate(1000, 1000) == pytest.approx(0.0)


def test_every_word_is_one_token_and_others_are_found(tmp_path: Path) -> None:
    tokenizer.write(tmp_path)
    words = tokenizer.load(tmp_path)
    known = tokenizer.words()
    assert len(known) > 250
    numbers = [words(word, add_special_tokens=False).input_ids for word in known]
    assert [word for word, tokens in zip(known, numbers, strict=True) if len(tokens) != 1] == []
    assert len({tokens[0] for tokens in numbers}) == len(known)
    assert len(words("zebra", add_special_tokens=False).input_ids) > 1
    assert tokenizer.unknown("A bald man, with a Zebra's mustache!") == ["zebra"]
    padded = words("a bald man", padding="max_length", max_length=tokenizer.TOKENS).input_ids
    assert (padded[0], padded[4]) == (words.bos_token_id, words.eos_token_id)
    assert set(padded[5:]) == {words.pad_token_id}


def test_all_captions_are_within_the_vocabulary() -> None:
    heads = attributes.decode(attributes.draw(5, 0, 150))
    chance = draws.generator(0, "captions")
    for head in range(150):
        caption = captions.caption(heads, head, chance)
        asked = phrasing.dressed(caption, chance)
        assert tokenizer.unknown(f"{caption} {asked}") == []
        assert len(tokenizer.split(asked)) <= tokenizer.TOKENS - 2


def test_folded_latents_are_standard_and_decode_alike() -> None:
    torch.manual_seed(0)
    vae = autoencoder.build(tiny=True).eval()
    image = draws.normal((8, 3, 32, 32), draws.key(0, "image"))
    with torch.no_grad():
        before = vae.decode(vae.encode(image).latent_dist.mean).sample
        deviation = vae.encode(image).latent_dist.std
        moments = autoencoder.latent_moments(vae, [image])
        autoencoder.fold(vae, *moments)
        after = vae.encode(image).latent_dist
        torch.testing.assert_close(after.mean.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
        torch.testing.assert_close(after.mean.std((0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)
        torch.testing.assert_close(after.std, deviation / moments[1][:, None, None])
        torch.testing.assert_close(vae.decode(after.mean).sample, before, atol=1e-4, rtol=1e-4)


def test_images_are_laid_over_plain_colours_by_their_mask() -> None:
    image = torch.tensor([[[[255, 255, 255], [0, 51, 102]]]], dtype=torch.uint8)  # (1, 1, 2, 3): white, then a head
    mask = torch.tensor([[[0, 255]]], dtype=torch.uint8)
    colours = torch.tensor([[0.25, 0.5, 0.75]])
    over = autoencoder.over_colours(image, mask, colours, torch.tensor([True]))
    torch.testing.assert_close(over[0, 0], torch.tensor([[-0.5, 0.0, 0.5], [-1.0, -0.6, -0.2]]), atol=1e-6, rtol=0)
    white = autoencoder.over_colours(image, mask, colours, torch.tensor([False]))
    torch.testing.assert_close(white[0, 0, 0], torch.ones(3))


@pytest.mark.parametrize("stop", [1, 4])
def test_a_stopped_and_resumed_diffusion_run_equals_an_uninterrupted_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    vae = tmp_path / "vae"
    torch.manual_seed(0)
    autoencoder.export(autoencoder.build(tiny=True), vae)
    monkeypatch.setattr(diffusion, "finish", lambda *args, **options: None)
    runs = [arguments(data, tmp_path / name) for name in ("whole", "pieces")]
    for args in runs:
        args.autoencoder = vae
    diffusion.run(runs[0])
    with monkeypatch.context() as interrupted:
        stop_after(interrupted, stop)
        diffusion.run(runs[1])
    diffusion.run(runs[1])
    whole, pieces = (load_file(args.out / "diffusion.state.safetensors") for args in runs)
    assert whole.keys() == pieces.keys()
    assert [key for key in whole if not torch.equal(whole[key], pieces[key])] == []


def test_recipes_leave_a_pipeline_that_loads_offline_and_denoises(data: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    autoencoder.run(arguments(data, tmp_path, steps=2))
    diffusion.run(arguments(data, tmp_path, steps=2))
    assert json.loads((tmp_path / "vae.card.json").read_text())["measured_on_held_out_heads"]["psnr_db"] > 0
    card = json.loads((tmp_path / "pipeline" / "card.json").read_text())
    assert card["measured_on_held_out_heads"]["noise_error"] > 0
    assert card["steps"] == 2
    assert (tmp_path / "samples.png").exists()
    whole = StableDiffusionPipeline.from_pretrained(tmp_path / "pipeline", local_files_only=True)
    assert {whole.unet.dtype, whole.vae.dtype, whole.text_encoder.dtype} == {torch.float32}
    assert whole.vae.config.scaling_factor == 1.0
    saved = load_file(tmp_path / "pipeline" / "text_encoder" / "model.safetensors")
    assert all(key.startswith("text_model.") and value.dtype == torch.float16 for key, value in saved.items())
    numbers = pipeline.encode_words(["a bald man", ""], whole.tokenizer)
    with torch.no_grad():
        hidden = whole.text_encoder(numbers).last_hidden_state
        noise = whole.unet(torch.zeros(2, 4, 32, 32), torch.tensor(500), hidden).sample
    assert noise.shape == (2, 4, 32, 32)
    assert torch.isfinite(noise).all()
    assert not torch.equal(noise[0], noise[1])  # the words matter

    unet, text = pipeline.build_unet(tiny=True), pipeline.build_text_encoder(*_tokens(whole.tokenizer), tiny=True)
    pipeline.load_weights(tmp_path / "pipeline", unet, text)  # a later run may begin from here
    before = text.state_dict()["final_layer_norm.weight"].clone()
    with pytest.raises(InputError, match=r"the UNet to be trained.*train without --start"):
        pipeline.load_weights(tmp_path / "pipeline", pipeline.build_unet(), text)
    assert torch.equal(text.state_dict()["final_layer_norm.weight"], before)
    with torch.no_grad():
        again = unet(torch.zeros(2, 4, 32, 32), torch.tensor(500), text(numbers).last_hidden_state).sample
    torch.testing.assert_close(again, noise, atol=1e-5, rtol=1e-5)


def test_the_shipped_pipeline_loads_by_its_own_settings() -> None:
    from diffusers import UNet2DConditionModel
    from facednerf_starter.plugin import FOLDER

    folder = FOLDER / "diffusion"
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", local_files_only=True, low_cpu_mem_usage=False)
    width = unet.config.cross_attention_dim
    noise = unet(torch.zeros(1, 4, 32, 32), torch.tensor(500), torch.zeros(1, tokenizer.TOKENS, width)).sample
    assert torch.isfinite(noise).all()


def test_networks_of_the_default_size_are_small() -> None:
    unet, text = pipeline.build_unet(), pipeline.build_text_encoder(1371, 1370)
    sizes = [sum(value.numel() for value in network.parameters()) for network in (unet, text)]
    assert 2e6 < sizes[0] < 3.2e6
    assert 2e5 < sizes[1] < 6e5


def test_a_third_of_the_texts_name_one_attribute_and_often_what_edits_find_hard(data: Path, tmp_path: Path) -> None:
    tokenizer.write(tmp_path)
    words = tokenizer.load(tmp_path)
    shards = Shards(data, held_every=5)
    often = {"expression": 1e9}
    said = sayings(shards, words, 3, often=often)
    assert said.tokens.shape == (2 * HEADS, 3 * SENTENCES, tokenizer.TOKENS)
    heads = attributes.decode(attributes.draw(0, 0, 2 * HEADS))
    singles = [words.decode(row, skip_special_tokens=True) for row in said.tokens[:, -SENTENCES:].flatten(0, 1).tolist()]
    chosen = 0
    for number, text in enumerate(singles):
        looks = captions.facts(heads, number // SENTENCES)["expression"]
        about = any(look.removeprefix("with ") in text for look in looks)
        assert about or "without" in text
        chosen += about
    assert chosen > len(singles) / 2
    assert torch.equal(said.tokens[:, : 2 * SENTENCES], sayings(shards, words, 3).tokens[:, : 2 * SENTENCES])

    pairs = diffusion.Pairs(np.zeros((2 * HEADS, 4, 4, 8, 8), np.float16), said, shards.training, torch.zeros(1, 48), CPU, 3)
    drawn = pairs.draw(0, 64)
    assert drawn["latent"].shape == drawn["noise"].shape == (64, 4, 8, 8)
    known = {tuple(row) for row in said.tokens[shards.training].flatten(0, 1).tolist()} | {(0,) * tokenizer.TOKENS}
    assert {tuple(row) for row in drawn["tokens"].long().tolist()} <= known


def test_a_step_of_the_diffusion_neither_waits_for_the_device_nor_makes_tensors_elsewhere() -> None:
    """So that it can be recorded: on the device `meta` a number that is read raises."""
    elsewhere: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            found = function(*args, **(kwargs or {}))
            made = [value for value in tree_leaves(found) if isinstance(value, torch.Tensor)]
            elsewhere.extend(str(function) for value in made if value.device.type != "meta")
            return found

    unet = pipeline.build_unet(tiny=True).to("meta")
    text = pipeline.build_text_encoder(50, 49, tiny=True).to("meta")
    drawn = {
        "latent": torch.empty(2, 4, 32, 32, device="meta"),
        "noise": torch.empty(2, 4, 32, 32, device="meta"),
        "steps": torch.empty(2, dtype=torch.int64, device="meta"),
        "tokens": torch.empty(2, tokenizer.TOKENS, dtype=torch.int64, device="meta"),
    }
    with Watch():
        diffusion.prediction_error(unet, text, torch.empty(pipeline.STEPS, device="meta"), drawn).mean().backward()
        torch.nn.utils.clip_grad_norm_([*unet.parameters(), *text.parameters()], 1.0)
    assert elsewhere == []


def test_adamw_follows_the_rate_that_is_set() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    adam = adamw_of([weight], 1.0, CPU, decay=0.0)
    set_rate(adam, 0.25)
    weight.sum().backward()
    adam.step()
    assert torch.allclose(weight.detach(), torch.full((3,), 0.75), atol=1e-5)


def _tokens(words: object) -> tuple[int, int]:
    return len(words), words.eos_token_id
