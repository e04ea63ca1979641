"""What every test may rely on: no network, one thread, a home of its own, and where the repository is."""

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # read when torch is imported
    os.environ.setdefault(_variable, "1")

_HOME: list[tempfile.TemporaryDirectory[str]] = []


def pytest_configure() -> None:
    _HOME.append(tempfile.TemporaryDirectory(prefix="facednerf-tests-"))
    home = Path(_HOME[0].name)
    os.environ.update(
        HOME=str(home),
        XDG_CACHE_HOME=str(home / "cache"),
        XDG_CONFIG_HOME=str(home / "config"),
        HF_HOME=str(home / "huggingface"),
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        FACEDNERF_CACHE=str(home / "facednerf"),
    )
    os.environ.pop("FACEDNERF_PLUGINS", None)


def pytest_unconfigure() -> None:
    _HOME.pop().cleanup()


def pytest_runtest_setup() -> None:
    from pytest_socket import disable_socket

    disable_socket(allow_unix_socket=True)


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the repository."""
    return Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared_reference(repo: Path) -> Path:
    """The folder of facts and golden numbers beside the repository, where there is one."""
    folder = repo.parent / "shared" / "reference"
    if not folder.is_dir():
        pytest.skip("the reference folder beside the repository is not here")
    return folder


@pytest.fixture(autouse=True)
def few_heads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen heads of an atlas in place of all, which take long to score; tests of the atlas have all."""
    if "atlas" in request.path.name or "startup" in request.path.name:
        return
    from facednerf_eg3d.generator import Eg3d

    from facednerf_core.scene import Atlas

    whole = Eg3d.atlas

    def few(self: Eg3d) -> Atlas | None:
        known = whole(self)
        return None if known is None else Atlas(known.latents[:16], known.pictures[:16])

    monkeypatch.setattr(Eg3d, "atlas", few)


Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a distribution of one module, with entry points, for this test and for subprocesses that it starts."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))

    def put(name: str, source: str, version: str = "1.0", **entry_points: Mapping[str, str]) -> Path:
        """`entry_points` by group, with `_` for `.`: facednerf={"mine": "mine"}, facednerf_commands={"mine": "mine:run"}."""
        import importlib

        module = name.replace("-", "_")
        (site / f"{module}.py").write_text(source)
        info = site / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = []
        for group, points in entry_points.items():
            lines += [f"[{group.replace('_', '.')}]", *(f"{key} = {value}" for key, value in points.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        importlib.invalidate_caches()
        monkeypatch.delitem(__import__("sys").modules, module, raising=False)
        return site

    return put
