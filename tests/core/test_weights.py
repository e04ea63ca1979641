"""Weights: found by plugin, pack and domain, verified, imported once, and asked for politely when missing."""

import http.server
import os
import sys
import threading
from dataclasses import replace

import pytest

from facednerf_core.cards import WeightsCard
from facednerf_core.errors import InputError, MissingWeights, UnknownName
from facednerf_core.weights import Registry, cache_folder, digest, fetchable, size


@pytest.fixture
def shipped(tmp_path):
    """A card whose file lies in a distribution's folder."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    (folder / "net.safetensors").write_bytes(b"starter")
    return WeightsCard(
        "eg3d/starter",
        "eg3d",
        "generator",
        "starter",
        "Small heads",
        domains=("face",),
        files={"net": "net.safetensors"},
        folder=folder,
        sha256={"net": digest(folder / "net.safetensors")},
    )


OFFICIAL = WeightsCard(
    "eg3d/ffhq",
    "eg3d",
    "generator",
    "official",
    "EG3D on FFHQ",
    domains=("face",),
    files={"net": "ffhq.pkl"},
    licence="NVIDIA, non-commercial",
    source="https://example.org/a/page",
)


def registry(tmp_path, *cards):
    return Registry({card.name: card for card in cards}, tmp_path / "cache")


def taken(tmp_path, name="official.pkl", content=b"official"):
    file = tmp_path / name
    file.write_bytes(content)
    return file


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FACEDNERF_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("FACEDNERF_CACHE")
    assert cache_folder().name == "facednerf"


def test_shipped_files_are_used_where_they_lie(tmp_path, shipped):
    local = registry(tmp_path, shipped).resolve("generator", "eg3d", "starter", ("face",))
    assert local["net"] == shipped.folder / "net.safetensors"


def test_a_damaged_shipped_file_is_refused(tmp_path, shipped):
    (shipped.folder / "net.safetensors").write_bytes(b"starteR")
    with pytest.raises(MissingWeights, match=r"net.safetensors is damaged.*Install the distribution again"):
        registry(tmp_path, shipped).local(shipped)


def test_a_file_that_changes_after_it_was_verified_is_noticed(tmp_path, shipped):
    weights = registry(tmp_path, shipped)
    weights.local(shipped)
    (shipped.folder / "net.safetensors").write_bytes(b"longer than before")
    with pytest.raises(MissingWeights, match="damaged"):
        weights.local(shipped)


def test_a_verdict_is_remembered_while_size_and_time_stay(tmp_path, shipped, monkeypatch):
    weights = registry(tmp_path, shipped)
    weights.local(shipped)
    monkeypatch.setattr("facednerf_core.weights.digest", lambda path: pytest.fail("read again"))
    weights.local(shipped)
    os.utime(shipped.folder / "net.safetensors", ns=(1, 1))
    with pytest.raises(pytest.fail.Exception, match="read again"):
        weights.local(shipped)


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path, shipped):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert registry(tmp_path, shipped).local(shipped)["net"].exists()


def test_missing_weights_say_what_where_and_how(tmp_path):
    with pytest.raises(MissingWeights) as caught:
        registry(tmp_path, OFFICIAL).resolve("generator", "eg3d", "official", ("face",))
    message = str(caught.value)
    for part in ("eg3d/ffhq", "EG3D on FFHQ", "NVIDIA", "https://example.org/a/page", "fdn weights import eg3d/ffhq FILE"):
        assert part in message


def test_auto_takes_the_starter_until_the_official_is_here(tmp_path, shipped):
    weights = registry(tmp_path, shipped, OFFICIAL)
    assert weights.choose("generator", "eg3d").name == "eg3d/starter"
    weights.import_file("eg3d/ffhq", taken(tmp_path))
    assert weights.choose("generator", "eg3d").name == "eg3d/ffhq"
    assert weights.choose("generator", "eg3d", "starter").name == "eg3d/starter"


def test_packs_never_mix(tmp_path, shipped):
    weights = registry(tmp_path, shipped, OFFICIAL)
    with pytest.raises(MissingWeights, match="eg3d/ffhq"):
        weights.choose("generator", "eg3d", "official")


def test_another_domain_is_not_served(tmp_path, shipped):
    with pytest.raises(MissingWeights, match=r"no weights for cat for the generator 'eg3d'.*there are: eg3d/starter"):
        registry(tmp_path, shipped).choose("generator", "eg3d", "auto", ("cat",))


def test_another_plugin_is_not_served(tmp_path, shipped):
    with pytest.raises(MissingWeights, match="the generator 'panohead'; there are: none"):
        registry(tmp_path, shipped).choose("generator", "panohead")


def test_a_card_of_any_pack_serves_every_pack(tmp_path, shipped):
    everywhere = replace(shipped, name="eg3d/any", pack="any")
    weights = registry(tmp_path, OFFICIAL, everywhere)
    assert weights.choose("generator", "eg3d", "official").name == "eg3d/any"
    assert weights.pack([("generator", "eg3d")]) == "official"
    assert [card.name for card in weights.packs()["official"].present] == ["eg3d/any"]
    assert "any" not in weights.packs()


def test_where_no_pack_is_complete_the_starter_is_asked_for(tmp_path, shipped):
    (shipped.folder / "net.safetensors").unlink()
    assert registry(tmp_path, OFFICIAL, shipped).pack([("generator", "eg3d")]) == "starter"


def test_unknown_packs_and_cards_offer_the_nearest(tmp_path, shipped):
    weights = registry(tmp_path, shipped, OFFICIAL)
    with pytest.raises(UnknownName, match="mean 'official'"):
        weights.choose("generator", "eg3d", "oficial")
    with pytest.raises(UnknownName, match="mean 'eg3d/ffhq'"):
        weights.import_file("eg3d/fhq", taken(tmp_path))


def test_the_pack_for_several_needs_must_serve_all_of_them(tmp_path, shipped):
    starter = replace(shipped, name="arcface/starter", plugin="arcface", kind="identity")
    official = replace(OFFICIAL, name="arcface/r50", plugin="arcface", kind="identity", files={"net": "r50.pt"})
    weights = registry(tmp_path, shipped, starter, OFFICIAL, official)
    needs = [("generator", "eg3d"), ("identity", "arcface")]
    weights.import_file("eg3d/ffhq", taken(tmp_path))
    assert weights.pack(needs) == "starter"
    weights.import_file("arcface/r50", taken(tmp_path, content=b"r50"))
    assert weights.pack(needs) == "official"
    assert weights.pack([("generator", "unheard")]) == "starter"


def test_packs_say_whether_they_are_complete(tmp_path, shipped):
    packs = registry(tmp_path, shipped, OFFICIAL).packs()
    assert packs["starter"].complete
    assert not packs["official"].complete
    assert [card.name for card in packs["official"].missing] == ["eg3d/ffhq"]
    assert registry(tmp_path, shipped, OFFICIAL).packs(("cat",)) == {}


def test_one_of_several_alternatives_completes_a_pack(tmp_path):
    kinds = {"identity": ("ir_se50", "w600k_r50"), "guidance": ("sd15", "vit_b")}
    alternatives = [
        replace(OFFICIAL, name=f"{kind}/{name}", plugin=name, kind=kind, files={"net": f"{name}.pt"})
        for kind, names in kinds.items()
        for name in names
    ]
    weights = registry(tmp_path, OFFICIAL, *alternatives)
    weights.import_file("eg3d/ffhq", taken(tmp_path))
    weights.import_file("identity/w600k_r50", taken(tmp_path, content=b"r50"))
    pack = weights.packs()["official"]
    assert [card.name for card in pack.missing] == ["guidance/sd15", "guidance/vit_b"], "either will do"
    assert pack.gaps == {"guidance": ("face",)}
    weights.import_file("guidance/vit_b", taken(tmp_path, content=b"vit"))
    pack = weights.packs()["official"]
    assert pack.complete
    assert pack.gaps == {}
    assert [card.name for card in pack.present] == ["eg3d/ffhq", "identity/w600k_r50", "guidance/vit_b"]


def test_an_alternative_must_know_the_same_domains(tmp_path):
    cats = replace(OFFICIAL, name="eg3d/cats", domains=("cat",), files={"net": "cats.pkl"})
    heads = replace(OFFICIAL, name="panohead/heads", plugin="panohead", domains=("face", "head"), files={"net": "h.pkl"})
    anything = replace(OFFICIAL, name="vgg16/a", plugin="vgg16", kind="perceptual", domains=("any",), files={"net": "a"})
    other = replace(anything, name="vgg16/b", files={"net": "b"}, domains=("face",))
    weights = registry(tmp_path, OFFICIAL, cats, heads, anything, other)
    weights.import_file("eg3d/ffhq", taken(tmp_path))
    weights.import_file("vgg16/b", taken(tmp_path, content=b"b"))

    def missing(*domains):
        return [card.name for card in weights.packs(*domains)["official"].missing]

    assert missing() == ["eg3d/cats", "panohead/heads", "vgg16/a"]
    assert missing(("face",)) == []
    assert missing(("head",)) == ["panohead/heads", "vgg16/a"]
    weights.import_file("panohead/heads", taken(tmp_path, content=b"heads"))
    assert missing(("face", "head")) == ["vgg16/a"]
    weights.import_file("vgg16/a", taken(tmp_path, content=b"a"))
    assert missing() == ["eg3d/cats"]


def test_metrics_are_no_alternatives_to_each_other(tmp_path):
    one = replace(OFFICIAL, name="clip/score", plugin="clip", kind="metric", files={"net": "clip.pt"})
    weights = registry(tmp_path, one, replace(one, name="fid/score", plugin="fid", files={"net": "fid.pt"}))
    weights.import_file("clip/score", taken(tmp_path))
    assert [card.name for card in weights.packs()["official"].missing] == ["fid/score"]


def test_import_copies_into_a_folder_named_by_the_content(tmp_path):
    weights, source = registry(tmp_path, OFFICIAL), taken(tmp_path)
    local = weights.import_file("eg3d/ffhq", source)
    assert local["net"].read_bytes() == b"official"
    assert digest(source) in local["net"].parts
    source.unlink()
    assert registry(tmp_path, OFFICIAL).local(OFFICIAL).paths == local.paths
    assert weights.hashes(OFFICIAL) == {"net": digest(local["net"])}


def test_a_damaged_import_is_noticed_and_mended_by_importing_again(tmp_path):
    weights, source = registry(tmp_path, OFFICIAL), taken(tmp_path)
    place = weights.import_file("eg3d/ffhq", source)["net"]
    place.write_bytes(b"rotten")
    with pytest.raises(MissingWeights, match=r"damaged.*fdn weights import eg3d/ffhq"):
        weights.local(OFFICIAL)
    assert weights.import_file("eg3d/ffhq", source)["net"].read_bytes() == b"official"


def test_import_checks_the_hash_of_the_official_file(tmp_path):
    strict = replace(OFFICIAL, sha256={"source": "0" * 64})
    with pytest.raises(InputError, match="not the file that eg3d/ffhq expects"):
        registry(tmp_path, strict).import_file("eg3d/ffhq", taken(tmp_path))


def test_import_checks_the_hash_of_what_is_kept(tmp_path):
    strict = replace(OFFICIAL, sha256={"net": "0" * 64})
    weights = registry(tmp_path, strict)
    with pytest.raises(InputError, match="not the file that eg3d/ffhq expects"):
        weights.import_file("eg3d/ffhq", taken(tmp_path))
    assert not weights.present(strict)


def test_import_of_a_missing_file_and_of_shipped_weights(tmp_path, shipped):
    weights = registry(tmp_path, OFFICIAL, shipped)
    with pytest.raises(InputError, match="no file or folder"):
        weights.import_file("eg3d/ffhq", tmp_path / "nowhere.pkl")
    with pytest.raises(InputError, match="nothing to import"):
        weights.import_file("eg3d/starter", taken(tmp_path))


def test_import_takes_folders(tmp_path):
    card = replace(OFFICIAL, name="sds/sd15", plugin="sds", kind="guidance", files={"pipeline": "pipeline"})
    source = tmp_path / "stable"
    (source / "unet").mkdir(parents=True)
    (source / "model_index.json").write_text("{}")
    (source / "unet" / "net.bin").write_bytes(b"unet")
    weights = registry(tmp_path, card)
    place = weights.import_file("sds/sd15", source)["pipeline"]
    assert (place / "unet" / "net.bin").read_bytes() == b"unet"
    (place / "unet" / "net.bin").write_bytes(b"unet, changed")
    with pytest.raises(MissingWeights, match="damaged"):
        weights.local(card)


def test_import_of_several_files_wants_their_folder(tmp_path):
    card = replace(OFFICIAL, files={"net": "net.pt", "text": "words.txt"})
    weights = registry(tmp_path, card)
    with pytest.raises(InputError, match="give the folder"):
        weights.import_file("eg3d/ffhq", taken(tmp_path))
    folder = tmp_path / "both"
    folder.mkdir()
    (folder / "net.pt").write_bytes(b"net")
    with pytest.raises(InputError, match=r"has no words.txt"):
        weights.import_file("eg3d/ffhq", folder)
    (folder / "words.txt").write_text("old")
    assert weights.import_file("eg3d/ffhq", folder)["text"].read_text() == "old"


@pytest.fixture
def converter(tmp_path, monkeypatch):
    """A module with converters, as a plugin would ship it."""
    (tmp_path / "some_converter.py").write_text(
        "def upper(source, folder):\n"
        "    (folder / 'net.safetensors').write_bytes(source.read_bytes().upper())\n"
        "def fails(source, folder):\n    raise KeyError('G_ema')\n"
        "def forgets(source, folder):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield lambda name: replace(OFFICIAL, converter=f"some_converter:{name}", files={"net": "net.safetensors"})
    sys.modules.pop("some_converter", None)


def test_import_converts_once(tmp_path, converter):
    card = converter("upper")
    local = registry(tmp_path, card).import_file("eg3d/ffhq", taken(tmp_path))
    assert local["net"].read_bytes() == b"OFFICIAL"


def test_a_converter_that_cannot_read_the_file_is_said_and_leaves_nothing(tmp_path, converter):
    weights = registry(tmp_path, converter("fails"))
    with pytest.raises(InputError, match=r"official.pkl is not what eg3d/ffhq expects .*KeyError: 'G_ema'"):
        weights.import_file("eg3d/ffhq", taken(tmp_path))
    assert not list((tmp_path / "cache").iterdir())


def test_a_converter_that_forgets_a_file_is_said(tmp_path, converter):
    with pytest.raises(InputError, match=r"forgets of eg3d/ffhq did not write net.safetensors"):
        registry(tmp_path, converter("forgets")).import_file("eg3d/ffhq", taken(tmp_path))


def test_a_record_that_is_damaged_is_said(tmp_path):
    weights = registry(tmp_path, OFFICIAL)
    weights.import_file("eg3d/ffhq", taken(tmp_path))
    (record,) = (tmp_path / "cache" / "imported").iterdir()
    record.write_text("{")
    with pytest.raises(InputError, match="import eg3d/ffhq again"):
        weights.local(OFFICIAL)


def test_a_cache_that_cannot_take_an_import_is_said(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(InputError, match="cannot import"):
        registry(tmp_path, OFFICIAL).import_file("eg3d/ffhq", taken(tmp_path))


def test_only_addresses_of_files_can_be_fetched():
    assert fetchable(replace(OFFICIAL, source="https://example.org/ffhq.pkl"))
    assert not fetchable(OFFICIAL)
    assert not fetchable(replace(OFFICIAL, source="ask.pkl"))


@pytest.fixture
def server(tmp_path, socket_enabled):
    """A file server on this machine."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *arguments):
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_fetch_downloads_verifies_and_imports(tmp_path, server, monkeypatch):
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    folder, address = server
    (folder / "ffhq.pkl").write_bytes(b"official")
    card = replace(OFFICIAL, source=f"{address}/ffhq.pkl", sha256={"source": digest(folder / "ffhq.pkl")})
    weights = registry(tmp_path, card)
    assert weights.fetch("eg3d/ffhq")["net"].read_bytes() == b"official"
    (folder / "ffhq.pkl").write_bytes(b"another")
    assert weights.fetch("eg3d/ffhq")["net"].read_bytes() == b"official"
    other = replace(card, name="eg3d/other")
    with pytest.raises(MissingWeights, match="eg3d/other cannot be fetched"):
        registry(tmp_path, other).fetch("eg3d/other")


def test_fetch_of_what_has_no_address_says_how_else(tmp_path):
    with pytest.raises(MissingWeights, match="fdn weights import eg3d/ffhq FILE"):
        registry(tmp_path, OFFICIAL).fetch("eg3d/ffhq")


def test_the_digest_of_a_folder_is_that_of_sha256sum_lines(tmp_path):
    import hashlib

    folder = tmp_path / "folder"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "two").write_bytes(b"2")
    (folder / "a").write_bytes(b"1")
    one, two = (hashlib.sha256(content).hexdigest() for content in (b"1", b"2"))
    assert digest(folder) == hashlib.sha256(f"{one}  a\n{two}  b/two\n".encode()).hexdigest()
    assert size(folder) == 2
