"""Score distillation: its equation against golden numbers, both kinds of prediction, draws, prompts, and folders."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from facednerf_sds.denoiser import Epsilon, Velocity, amplitudes, denoiser
from facednerf_sds.guidance import SCORED_AT_ONCE, ScoreDistillation
from facednerf_sds.options import SdsOptions
from facednerf_sds.pipeline import Pipeline, load
from facednerf_sds.plugin import build
from facednerf_sds.timesteps import Annealed, Uniform, between, parted
from safetensors.torch import load_file
from torch import Tensor

from facednerf_core.cards import LocalWeights, WeightsCard
from facednerf_core.compute import rng
from facednerf_core.errors import InputError, MissingWeights, Unsupported
from facednerf_core.scene import Rendering
from facednerf_core.terms import Loss, LossFn, Step
from tests.smooth import draw, gradient, he, latent, spread, step, subject

GOLDEN = Path(__file__).parents[1] / "golden" / "losses"
WORDS = ("a", "man", "with", "glasses", "blue", "hair")
FRONT = subject()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("pipeline"))


def write_pipeline(folder: Path) -> Path:
    """A diffusers pipeline folder of tiny random networks, with a closed vocabulary."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    merges, tokens = [], [*"abcdefghijklmnopqrstuvwxyz'", *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz'")]
    for word in WORDS:
        for end in range(2, len(word) + 1):
            last = "</w>" if end == len(word) else ""
            merges.append(f"{word[: end - 1]} {word[end - 1]}{last}")
            tokens.append(word[:end] + last)
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    (tokenizer / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n" + "\n".join(dict.fromkeys(merges)) + "\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 12, "unk_token": "<|endoftext|>", **special}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(config))
    (tokenizer / "vocabulary.txt").write_text("\n".join(WORDS))
    blocks: dict[str, Any] = {"block_out_channels": (8, 8), "norm_num_groups": 4}
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, sample_size=64, **blocks
    )
    he(vae).save_pretrained(folder / "vae")
    unet = UNet2DConditionModel(
        sample_size=32,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=4,
        layers_per_block=1,
        **blocks,
    )
    unet.save_pretrained(folder / "unet")
    ends = {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1, "pad_token_id": len(tokens) - 1}
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = CLIPTextModel(CLIPTextConfig(vocab_size=len(tokens), max_position_embeddings=12, **sizes, **ends))
    text.save_pretrained(folder / "text_encoder")
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    scheduler.save_pretrained(folder / "scheduler")
    return folder


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Pipeline:
    return load(folder, torch.device("cpu"), torch.float32)


class Latents:
    """An "autoencoder" whose latents are 2 image - 1, as in the golden run."""

    factor, channels, posterior = 1, 4, False

    def encode(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        return 2 * image - 1


def test_gradient_equals_the_golden_one(pipeline: Pipeline) -> None:
    golden = load_file(GOLDEN / "golden_sds.safetensors")
    seen: dict[str, Tensor] = {}

    def denoise(noisy: Tensor, t: Tensor, text: Tensor) -> Tensor:
        seen.update(noisy=noisy[:1])
        return torch.cat([golden["eps_text"], golden["eps_uncond"]])

    bare = replace(pipeline, autoencoder=Latents(), denoise=denoise, size=16, multiple=1)
    guidance = ScoreDistillation(bare, SdsOptions(scale=100.0))
    nothing = torch.zeros(1, 1, 1)
    image = (golden["latents"] + 1) / 2
    found, _ = guidance.gradient(image, golden["t"], golden["noise"], nothing, nothing)
    expected = golden["grad_pred_rgb_lambda1.3e-5_ds4"]
    assert torch.allclose(seen["noisy"], golden["noisy"], atol=1e-6)
    assert torch.allclose(found.double() * expected.numel() * 1.3e-5, expected, rtol=1e-5, atol=1e-9)
    assert float(guidance._weights(golden["t"])) == pytest.approx(float(golden["w_t"]), rel=1e-5)


def test_schedule_equals_the_golden_one(pipeline: Pipeline) -> None:
    golden = json.loads((GOLDEN / "golden_schedules.json").read_text())["alphas_cumprod_sd_scaled_linear"]
    for t, expected in golden.items():
        assert float(pipeline.alpha_bars[int(t)]) == pytest.approx(expected, rel=1e-4)


def test_epsilon_and_velocity_wrappers_of_one_denoiser_give_equal_gradients(pipeline: Pipeline) -> None:
    assert isinstance(pipeline.denoise, Epsilon)
    unet = pipeline.denoise.unet

    class Faster:
        """The same denoiser, retold as v = (eps - sigma z_t) / alpha."""

        def __call__(self, noisy: Tensor, t: Tensor, encoder_hidden_states: Tensor) -> Any:
            alpha, sigma = amplitudes(pipeline.alpha_bars, t, noisy)
            made = unet(noisy, t, encoder_hidden_states=encoder_hidden_states)
            made.sample = (made.sample - sigma * noisy) / alpha
            return made

    retold = replace(pipeline, denoise=denoiser(Faster(), "v_prediction", pipeline.alpha_bars))
    assert isinstance(retold.denoise, Velocity)
    grads = []
    for each in (pipeline, retold):
        loss = ScoreDistillation(each, SdsOptions(scale=3.0)).aim("a man with glasses", FRONT)
        grads.append(gradient(loss, 64))
    assert float((grads[0] - grads[1]).norm() / grads[0].norm()) < 1e-4
    with pytest.raises(Unsupported, match="sample"):
        denoiser(unet, "sample", pipeline.alpha_bars)


def test_one_normalisation(pipeline: Pipeline) -> None:
    assert spread(ScoreDistillation(pipeline, SdsOptions()).aim("blue hair", FRONT)) < 0.2


def test_gradient_is_a_mean_over_latents_so_the_models_size_does_not_matter(pipeline: Pipeline) -> None:
    sums = []
    for size in (32, 128):
        bare = replace(pipeline, autoencoder=Latents(), denoise=lambda z, t, text: torch.ones_like(z), size=size)
        guidance = ScoreDistillation(bare, SdsOptions(scale=0.0, weighting="constant"))
        noise, nothing = torch.zeros(1, 3, size, size), torch.zeros(1, 1, 1)
        found, _ = guidance.gradient(draw(latent(), 64).image[:, 0], torch.tensor([500]), noise, nothing, nothing)
        sums.append(float(found.sum()))
    assert sums == pytest.approx([2.0, 2.0], rel=1e-4)


def test_value_and_gradient_are_per_subject_and_reproducible(pipeline: Pipeline) -> None:
    loss = ScoreDistillation(pipeline, SdsOptions()).aim("a man", FRONT)
    pair = latent(subjects=2)
    pair.w.data[1] = pair.w.data[0]
    image = draw(pair, 64, views=2)
    value = loss(image, step(pair)).value
    assert value.shape == (2,)
    assert torch.allclose(value[0], value[1], rtol=1e-3)
    assert torch.equal(value, loss(image, step(pair)).value)
    assert not torch.equal(value, loss(image, step(pair, index=1)).value)


def test_metrics_tell_the_time_and_the_size_of_the_gradient(pipeline: Pipeline) -> None:
    metrics = (
        ScoreDistillation(pipeline, SdsOptions(t_min=0.5, t_max=0.5))
        .aim("a man", FRONT)(draw(latent(), 64), step(latent()))
        .metrics
    )
    assert metrics["t"] == 0.5
    assert metrics["gradient"] > 0


def test_scale_and_prompts_point_the_way(pipeline: Pipeline) -> None:
    def grad(prompt: str, scale: float, negative: str = "") -> Tensor:
        return gradient(ScoreDistillation(pipeline, SdsOptions(scale=scale)).aim(prompt, FRONT, negative=negative), 64)

    assert torch.allclose(grad("blue hair", 0.0), grad("blue hair", 0.0, "a man"))
    assert torch.allclose(grad("blue hair", 5.0, "blue hair"), grad("blue hair", 0.0), rtol=1e-3, atol=1e-9)
    assert not torch.allclose(grad("blue hair", 5.0), grad("blue hair", 5.0, "a man"))
    assert not torch.allclose(grad("blue hair", 0.0), grad("a man", 0.0))


def test_clip_bounds_the_gradient_and_weighting_is_an_option(pipeline: Pipeline) -> None:
    def metrics(**options: Any) -> float:
        loss = ScoreDistillation(pipeline, SdsOptions(t_min=0.3, t_max=0.3, **options)).aim("a man", FRONT)
        return loss(draw(latent(), 64), step(latent())).metrics["gradient"]

    assert metrics(clip=0.01) == pytest.approx(0.01, rel=1e-4)
    assert metrics(clip=100.0) == pytest.approx(metrics())
    assert metrics() == pytest.approx(metrics(weighting="constant") * float(1 - pipeline.alpha_bars[300]), rel=1e-4)


def test_a_source_prompt_leaves_only_the_difference(pipeline: Pipeline) -> None:
    guidance = ScoreDistillation(pipeline, SdsOptions(scale=2.0))
    same = guidance.aim("a man", FRONT, source_prompt="a man")
    assert float(gradient(same, 64, reference=latent()).norm()) < 1e-6
    other = guidance.aim("blue hair", FRONT, source_prompt="a man")
    assert float(gradient(other, 64, reference=latent()).norm()) > 1e-6
    with pytest.raises(ValueError, match="against"):
        other(draw(latent(), 64), step(latent()))


def test_the_region_of_a_sentence_is_where_the_denoiser_hears_it(pipeline: Pipeline) -> None:
    image = torch.rand(1, 1, 3, 64, 64) * 2 - 1
    man, blue = (pipeline.prompts.encode(text) for text in ("a man", "blue hair"))

    def denoise(z: Tensor, t: Tensor, text: Tensor) -> Tensor:
        heard = torch.zeros_like(z)
        heard[..., 4:8, 20:28] = 1.0  # there alone it depends on the text
        return heard * text.mean((1, 2)).view(-1, 1, 1, 1)

    guidance = ScoreDistillation(replace(pipeline, denoise=denoise), SdsOptions(scale=2.0))
    person = replace(FRONT, image=image)
    found = guidance.region("blue hair", person, source_prompt="a man")
    assert found is not None
    assert found.shape == (1, 1, 32, 32)
    assert float(found[..., 4:8, 20:28].min()) > 0.9
    assert float(found[..., 16:, :].max()) == 0.0
    assert not torch.equal(man, blue)
    assert guidance.region("blue hair", person) is None  # nothing to differ from
    assert guidance.region("blue hair", replace(FRONT, image=None), source_prompt="a man") is None


def test_pictures_are_scored_by_the_noise_that_the_prompt_finds_and_the_source_does_not(pipeline: Pipeline) -> None:
    asked: list[int] = []

    def listen(noisy: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """Under a text it takes every picture for bright, under another for dark."""
        asked.append(len(noisy))
        alpha, sigma = amplitudes(pipeline.alpha_bars, t, noisy)
        return (noisy - alpha * text.mean((1, 2)).sign().view(-1, 1, 1, 1)) / sigma

    class Words:
        def encode(self, text: str) -> Tensor:
            return torch.full((1, 2, 4), 1.0 if text == "bright" else -1.0)

    words: Any = Words()
    guidance = ScoreDistillation(replace(pipeline, autoencoder=Latents(), denoise=listen, prompts=words), SdsOptions())
    pictures = torch.tensor([0.9, 0.1, 0.6, 0.9]).view(-1, 1, 1, 1).expand(-1, 3, 16, 16)
    found = guidance.score(pictures, "bright", source_prompt="dark")
    assert found.shape == (4,)
    assert found[0] > found[2] > 0 > found[1]
    assert torch.allclose(found[0], found[3]), "all pictures share times and noise"
    assert torch.allclose(guidance.score(pictures[1:2], "bright", source_prompt="dark"), found[1:2], rtol=1e-4)
    assert torch.allclose(guidance.score(pictures, "bright"), guidance.score(pictures, "bright", negative="dark"))
    assert torch.allclose(guidance.score(pictures, "dark", source_prompt="bright"), -found)
    asked.clear()
    guidance.score(pictures[:1].expand(SCORED_AT_ONCE + 1, -1, -1, -1), "bright", source_prompt="dark")
    assert max(asked) == SCORED_AT_ONCE, "memory stays bounded"
    assert not guidance.score(pictures, "dark", source_prompt="dark").any()


def test_posterior_is_sampled_only_where_asked(folder: Path, pipeline: Pipeline) -> None:
    sampling = load(folder, torch.device("cpu"), torch.float32, posterior=True)
    image = draw(latent(), 64)
    seen: list[Tensor] = []
    for each in (pipeline, sampling):
        guidance = ScoreDistillation(each, SdsOptions(posterior=each is sampling))
        loss = guidance.aim("a man", FRONT)
        found: list[Tensor] = []
        guidance._noise_in = lambda z, *rest, found=found: (found.append(z), torch.zeros_like(z))[1]  # type: ignore[method-assign]
        loss(image, step(latent()))
        seen.append(found[0])
    assert float((seen[0] - seen[1]).abs().max()) > 1e-3


def test_uniform_times_stay_within_bounds_and_reach_them() -> None:
    draws = between(0.02, 0.98, 1000, "uniform").draw(20000, 0.0, rng(0))
    assert (int(draws.min()), int(draws.max())) == (20, 980)
    assert between(0.0, 1.0, 1000, "uniform") == Uniform(0, 999)


def test_annealed_times_go_from_high_to_low() -> None:
    times = between(0.1, 0.9, 1000, "annealed")
    assert isinstance(times, Annealed)
    means = [float(times.draw(500, progress, rng(1)).double().mean()) for progress in (0.0, 0.5, 1.0)]
    assert means[0] > 850
    assert means[1] == pytest.approx(500, abs=15)
    assert means[2] < 150


def test_uniform_times_of_several_draws_share_the_range() -> None:
    parts = parted(0.1, 0.9, 1000, "uniform", 4)
    drawn = [times.draw(2000, 0.0, rng(0)) for times in parts]
    assert [(int(one.min()), int(one.max())) for one in drawn] == [(100, 300), (300, 500), (500, 700), (700, 900)]
    assert parted(0.1, 0.9, 1000, "uniform", 1) == (between(0.1, 0.9, 1000, "uniform"),)
    assert parted(0.1, 0.9, 1000, "annealed", 3) == (between(0.1, 0.9, 1000, "annealed"),) * 3


def test_the_gradient_of_several_draws_is_the_mean_of_theirs(pipeline: Pipeline) -> None:
    guidance = ScoreDistillation(pipeline, SdsOptions(draws=3, clip=0.05))
    text, without = guidance.pipeline.prompts.encode("a man with glasses"), guidance.pipeline.prompts.encode("")
    image = torch.cat([draw(latent(), 64).image[:, 0], torch.zeros(1, 3, 64, 64)]).detach()
    z = guidance.latents(image)
    noise = torch.randn(6, *z.shape[1:], generator=rng(0))
    t = torch.tensor([100, 500, 900, 200, 400, 600])
    together, _ = guidance.gradient(image, t, noise, text, without)
    alone = [guidance.gradient(image[k // 3 :][:1], t[k : k + 1], noise[k : k + 1], text, without)[0][0] for k in range(6)]
    expected = torch.stack([torch.stack(alone[:3]).mean(0), torch.stack(alone[3:]).mean(0)])
    assert float((together - expected).norm() / expected.norm()) < 1e-4
    assert float((together[0] - alone[0]).norm() / alone[0].norm()) > 0.1


def _at(loss: LossFn, index: int, seen: Rendering | None, now: Step) -> Loss:
    return loss(seen, replace(now, index=index, rng=rng(0, "at", index)))


def test_more_draws_make_the_guidance_of_a_step_steadier(pipeline: Pipeline) -> None:
    def scatter(draws: int) -> float:
        loss = ScoreDistillation(pipeline, SdsOptions(draws=draws, weighting="constant")).aim("a man with glasses", FRONT)
        found = torch.stack([gradient(partial(_at, loss, index), 64).flatten() for index in range(8)])
        return float((found - found.mean(0)).norm())

    assert scatter(6) < 0.6 * scatter(1)


def test_words_outside_a_closed_vocabulary_are_named(pipeline: Pipeline) -> None:
    guidance = ScoreDistillation(pipeline, SdsOptions())
    assert guidance.unknown_words("A man's glasses, with Sombrero and sombrero!") == ("sombrero", "and")
    pipeline_open = replace(pipeline, prompts=type(pipeline.prompts)(pipeline.prompts.tokenizer, pipeline.prompts.encoder))
    assert ScoreDistillation(pipeline_open, SdsOptions()).unknown_words("sombrero") == ()


def test_long_prompts_are_counted_and_never_cut(pipeline: Pipeline) -> None:
    guidance = ScoreDistillation(pipeline, SdsOptions())
    assert guidance.longest_prompt("a man with glasses") == (6, 12)
    with pytest.raises(InputError, match="13 tokens and sds reads 12"):
        guidance.aim("a " * 11, FRONT)


def test_oblong_renderings_keep_their_shape(pipeline: Pipeline) -> None:
    image = torch.zeros(1, 3, 100, 60)
    assert ScoreDistillation(pipeline, SdsOptions()).latents(image).shape == (1, 4, 54, 32)


def test_card_builds_from_a_folder_and_says_what_is_missing(folder: Path, tmp_path: Path) -> None:
    card = WeightsCard("sds/test", "sds", "guidance", "test", "tiny")
    guidance = build(torch.device("cpu"), LocalWeights(card, {"pipeline": folder}), scale=1.0)
    assert isinstance(guidance, ScoreDistillation)
    assert guidance.options.scale == 1.0
    (tmp_path / "unet").mkdir()
    with pytest.raises(InputError, match="vae, text_encoder, tokenizer, scheduler"):
        build(torch.device("cpu"), LocalWeights(card, {"pipeline": tmp_path}))
    with pytest.raises(MissingWeights):
        build(torch.device("cpu"), None)


def test_a_part_that_cannot_be_read_is_named(folder: Path, tmp_path: Path) -> None:
    for part in folder.iterdir():
        (tmp_path / part.name).symlink_to(part) if part.name != "vae" else (tmp_path / "vae").mkdir()
    with pytest.raises(InputError, match="cannot read vae"):
        load(tmp_path, torch.device("cpu"), torch.float32)


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="t_min"):
        SdsOptions(t_min=0.9, t_max=0.1)
    with pytest.raises(InputError, match="clip"):
        SdsOptions(clip=0.0)
    with pytest.raises(InputError, match="draw"):
        SdsOptions(draws=0)


def test_half_precision_files_are_read_where_there_are_no_others(folder: Path, pipeline: Pipeline, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "half")
    for path in (tmp_path / "half").rglob("*model.safetensors"):
        path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
    half = load(tmp_path / "half", torch.device("cpu"), torch.float32)
    assert torch.equal(half.prompts.encode("a man"), pipeline.prompts.encode("a man"))
    image = draw(latent(), 64).image[:, 0]
    assert torch.equal(half.autoencoder.encode(image), pipeline.autoencoder.encode(image))


def test_listing_the_plugins_imports_no_heavy_library() -> None:
    code = "import sys, facednerf_sds.plugin as p; p.register_guidances(print); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "diffusers", "transformers"} & set(found)
