import errno
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from facednerf_core.errors import InputError
from facednerf_core.files import PART, sweep, whole_file, writable_folder, write_json, write_tensors, write_text


def test_a_file_appears_only_when_whole(tmp_path: Path):
    target = tmp_path / "a.txt"
    with whole_file(target) as part:
        part.write_text("new")
        assert part.suffix == ".txt"
        assert not target.exists()
    assert target.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def interrupted() -> None:
        with whole_file(target) as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_text_json_and_tensors(tmp_path: Path):
    write_text(tmp_path / "a.txt", "grüß")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "grüß"
    write_json(tmp_path / "a.json", {"b": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": 1}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": 1}
    w = torch.randn(2, 3, requires_grad=True)
    write_tensors(tmp_path / "a.safetensors", {"w": w, "t": w.t()}, {"for": "test"})
    assert torch.equal(load_file(tmp_path / "a.safetensors")["t"], w.detach().t())


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "full"), (errno.EACCES, "may not write"), (errno.EROFS, "read-only")]
)
def test_what_the_system_refuses_is_said_clearly(tmp_path: Path, number, said):
    with pytest.raises(InputError, match=rf"cannot write .*a\.txt: .*{said}.*--out"), whole_file(tmp_path / "a.txt"):
        raise OSError(number, "refused")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_really_full(tmp_path: Path):
    with pytest.raises(InputError, match="full"), whole_file(tmp_path / "a.txt"):
        Path("/dev/full").write_bytes(b"x")


def test_other_errors_are_not_disguised(tmp_path: Path):
    with pytest.raises(OSError, match="strange"), whole_file(tmp_path / "a.txt"):
        raise OSError(errno.EIO, "strange")


def test_a_folder_is_tried_before_the_work_begins(tmp_path: Path):
    assert writable_folder(tmp_path / "a" / "b").is_dir()
    assert not list((tmp_path / "a" / "b").iterdir())
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError, match=r"is a file.*--out"):
            writable_folder(place)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch):
    def refuse(path: Path, data: bytes) -> int:
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(InputError, match="may not write"):
        writable_folder(tmp_path / "run")


def test_left_overs_of_a_killed_process_are_swept(tmp_path: Path):
    (tmp_path / f".a.123{PART}.png").write_bytes(b"half")
    (tmp_path / "a.png").write_bytes(b"whole")
    assert len(sweep(tmp_path)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
