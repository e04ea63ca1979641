"""The recipe that softens a generator: on the line between two heads that differ in one thing stands their blend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from facednerf_eg3d.network import TriPlaneGenerator
from facednerf_starter.train import draws
from facednerf_starter.train.__main__ import main
from facednerf_starter.train.mapping import Design, numbers
from facednerf_starter.train.soften import TURNED, blended, turned
from facednerf_starter.world.attributes import LABELS, decode, draw
from facednerf_starter.world.cameras import frontal
from safetensors.torch import load_file, save_file

from facednerf_core.errors import InputError


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Shards of six heads, and the folder of a tiny generator of designed W, whose decoder is made to have a cliff."""
    root = tmp_path_factory.mktemp("soften")
    data, out = root / "data", root / "generator"
    main(["data", "--out", str(data), "--heads", "6", "--views", "2", "--size", "64", "--shard", "6"])
    words = ["--data", str(data), "--out", str(out), "--device", "cpu", "--steps", "2", "--batch", "2", "--held", "3"]
    main(["generator", *words, "--tiny", "--designed"])
    tensors = load_file(out / "generator.safetensors")
    for name in ("decoder.net.0.weight", "decoder.net.2.weight"):
        tensors[name] = tensors[name] * 3
    save_file(tensors, out / "generator.safetensors")
    return data, out


def drawn(folder: Path, share: float) -> torch.Tensor:
    """Features of three heads, `share` of the way from no glasses to glasses."""
    config = json.loads((folder / "generator.json").read_text())
    config.pop("class")
    tensors = {name: value.float() for name, value in load_file(folder / "generator.safetensors").items()}
    network = TriPlaneGenerator.from_state_dict(tensors, **config)
    design = Design(config["w_dim"], 1, torch.device("cpu"))
    bare, worn = (design(numbers(decode(draw(9, 0, 3)).replace(glasses=value))) for value in ("no", "yes"))
    ws = torch.lerp(bare, worn, share)[:, None].repeat(1, network.num_ws, 1)
    with torch.no_grad():
        return network.render(network.planes(ws), frontal(3), resolution=16).feature


def test_what_stands_between_two_heads_comes_nearer_to_their_blend(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, before = trained
    words = ["--data", str(data), "--held", "3", "--device", "cpu", "--generator", str(before / "generator.safetensors")]
    main(["soften", *words, "--out", str(tmp_path), "--steps", "240", "--rays", "8", "--disturb", "0.1", "--rate", "0.001"])
    wanted = torch.lerp(drawn(before, 0.0), drawn(before, 1.0), 0.5)
    off, now = ((drawn(folder, 0.5) - wanted).abs().mean() for folder in (before, tmp_path))
    assert now < 0.8 * off
    card = json.loads((tmp_path / "generator.card.json").read_text())
    assert card["about"].startswith("W was designed")
    assert card["softened"]["steps"] == 240
    assert card["softened"]["on_the_same_heads"]["after"]["heads"] == 2
    kept = "backbone.mapping.fc0.weight"
    assert torch.equal(*(load_file(folder / "generator.safetensors")[kept] for folder in (before, tmp_path)))


def test_each_head_is_turned_in_one_attribute() -> None:
    heads = decode(draw(3, 0, 40))
    other = turned(heads, draws.key(1, "turn"))
    changed = [
        [name for name in LABELS if int(getattr(heads, name)[i]) != int(getattr(other, name)[i])] for i in range(len(heads))
    ]
    assert all(len(names) == 1 and names[0] in TURNED for names in changed)
    assert len({names[0] for names in changed}) > 4
    assert torch.equal(heads.unit, other.unit)


def test_beyond_the_ends_nothing_changes() -> None:
    one, other = torch.zeros(3, 2), torch.ones(3, 2)
    assert torch.equal(blended(one, other, torch.tensor([-0.1, 0.25, 1.1]))[:, 0], torch.tensor([0.0, 0.25, 1.0]))


def test_a_learned_w_is_refused(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, folder = trained
    for name in ("generator.safetensors", "generator.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    card = json.loads((folder / "generator.card.json").read_text())
    card["settings"]["mapping"]["designed"] = False
    (tmp_path / "generator.card.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="was learned"):
        main(
            [
                "soften",
                "--data",
                str(data),
                "--generator",
                str(tmp_path / "generator.safetensors"),
                "--out",
                str(tmp_path / "o"),
            ]
        )
