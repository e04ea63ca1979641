"""The user's SMPL file: what is read of a pickle, what is refused, and the distances derived from its mesh."""

from __future__ import annotations

import io
import pickle
import pickletools
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from facednerf_eva3d.body import EXTENT
from facednerf_eva3d.bodyfile import load_body, open_body, save_body
from facednerf_eva3d.meshsdf import signed_distances, unsigned_distances
from facednerf_eva3d.pickled import plain, read_pickle
from facednerf_eva3d.smpl import read_smpl, smpl_body
from facednerf_eva3d.synthetic import synthetic_body
from scipy import sparse
from skimage.measure import marching_cubes

from facednerf_core.errors import InputError


class Py2Array:
    """An array as Python 2 pickled it: its bytes as text."""

    def __init__(self, value: np.ndarray) -> None:
        self.value = value

    def __reduce__(self):
        reconstruct, arguments, (version, shape, dtype, columns, raw) = self.value.__reduce__()
        return reconstruct, arguments, (version, shape, dtype, columns, raw.decode("latin1"))


@pytest.fixture
def chumpy(monkeypatch):
    """Classes of the names that SMPL's files use; they are gone again before a file is read."""
    made = types.SimpleNamespace()
    for module, name in (("chumpy.ch", "Ch"), ("chumpy.reordering", "Select"), ("chumpy.ch_ops", "add")):
        kind = type(name, (), {"__module__": module})
        monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
        setattr(sys.modules[module], name, kind)
        setattr(made, name, kind)
    return made


def with_state(kind: type, **state: object) -> object:
    made = kind()
    made.__dict__.update(state)
    return made


def small_mesh() -> tuple[np.ndarray, np.ndarray]:
    """The synthetic body's surface, coarse: some 1,300 vertices."""
    volume = synthetic_body(64).template_sdf.numpy()
    vertices, faces, _, _ = marching_cubes(volume, 0.0, spacing=(2 * EXTENT / 63,) * 3)
    return vertices.astype(np.float64) - EXTENT, faces.astype(np.int64)


def arrays(vertices: np.ndarray, faces: np.ndarray) -> dict[str, np.ndarray]:
    """What an SMPL file says, of a body of ours, with more shapes than are needed."""
    body, rng = synthetic_body(64), np.random.default_rng(0)
    tree = np.stack([body.parents.numpy(), np.arange(24)])
    return {
        "v_template": vertices,
        "shapedirs": np.concatenate([body.shapedirs.numpy(), rng.normal(size=(len(vertices), 3, 6))], axis=2),
        "posedirs": rng.normal(size=(len(vertices), 3, 207)) * 1e-3,
        "J_regressor": body.joint_regressor.numpy().astype(np.float64),
        "weights": body.weights.numpy().astype(np.float64),
        "kintree_table": np.where(tree < 0, 2**32 - 1, tree).astype(np.uint32),
        "f": faces.astype(np.uint32),
    }


@pytest.fixture
def smpl_file(tmp_path, chumpy) -> Path:
    """A file as SMPL's authors give it: chumpy's and scipy's arrays, Python 2's strings, and things nobody asks for."""
    plain_arrays = arrays(*small_mesh())
    shapes = plain_arrays["shapedirs"]
    flat = with_state(chumpy.Ch, x=shapes.ravel()[::-1].copy(), _cache=None, _dirty_vars={"x"})
    order = np.arange(shapes.size)[::-1].copy()
    content = {
        **plain_arrays,
        "v_template": with_state(chumpy.Ch, x=Py2Array(plain_arrays["v_template"])),
        "shapedirs": with_state(chumpy.Select, a=flat, idxs=order, preferred_shape=shapes.shape),
        "J_regressor": sparse.csc_matrix(plain_arrays["J_regressor"]),
        "weights": np.asfortranarray(plain_arrays["weights"]),
        "posedirs": Py2Array(plain_arrays["posedirs"].astype(">f8")),
        "J": with_state(chumpy.add, a=1, b=2),
        "bs_style": "lbs",
        "names": np.array(["a", "b"], dtype=object),
        "scale": np.float32(2.5),
    }
    path = tmp_path / "basicmodel.pkl"
    path.write_bytes(pickle.dumps(content, protocol=2))
    return path


def test_an_official_file_is_read_without_the_classes_it_names(smpl_file, monkeypatch):
    named = {argument for _, argument, _ in pickletools.genops(smpl_file.read_bytes()) if isinstance(argument, str)}
    assert {"chumpy.ch Ch", "chumpy.reordering Select", "scipy.sparse._csc csc_matrix"} <= named
    for module in [name for name in sys.modules if name.startswith("chumpy")]:
        monkeypatch.delitem(sys.modules, module)
    found, wanted = read_smpl(smpl_file), arrays(*small_mesh())
    assert np.array_equal(found.template, wanted["v_template"])
    assert np.array_equal(found.shapedirs, wanted["shapedirs"][:, :, :10])
    assert np.array_equal(found.posedirs.T.reshape(-1, 3, 207), wanted["posedirs"])
    assert np.array_equal(found.joint_regressor, wanted["J_regressor"])
    assert np.array_equal(found.weights, wanted["weights"])
    assert np.array_equal(found.faces, wanted["f"])
    assert found.parents.tolist() == synthetic_body(64).parents.tolist()
    assert not any(name.startswith("chumpy") for name in sys.modules)


def test_all_protocols_and_sparse_kinds(tmp_path, chumpy):
    dense = np.array([[0, 1.5, 0], [2, 0, -3]])
    for protocol in range(5):
        kinds = {kind.__name__: kind(dense) for kind in (sparse.csc_matrix, sparse.csr_matrix, sparse.coo_matrix)}
        content = {**kinds, "Ch": with_state(chumpy.Ch, x=dense), "numbers": np.arange(3, dtype=np.int32)}
        path = tmp_path / f"{protocol}.pkl"
        path.write_bytes(pickle.dumps(content, protocol=protocol))
        found = read_pickle(path)
        for name in (*kinds, "Ch"):
            assert np.array_equal(plain(found[name]), dense), (protocol, name)
        assert plain(found["numbers"]).dtype == np.int32


def test_arrays_that_are_none_are_refused_where_they_are_wanted(smpl_file):
    found = read_pickle(smpl_file)
    assert found["bs_style"] == "lbs"
    assert found["scale"] == np.float32(2.5)
    with pytest.raises(InputError, match=r"chumpy.ch_ops.add that was never evaluated"):
        plain(found["J"])
    with pytest.raises(InputError, match="holds list, not numbers"):
        plain(found["names"])
    with pytest.raises(InputError, match="str is no array"):
        plain(found["bs_style"])


RAN: list[str] = []


def run(*words: str) -> None:
    RAN.extend(words)


class Evil:
    def __init__(self, function, *arguments) -> None:
        self.what = function, arguments

    def __reduce__(self):
        return self.what


@pytest.mark.parametrize("function", [run, eval, exec, getattr, __import__, np.load, np.frombuffer, type])
def test_nothing_else_is_named(function, tmp_path):
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"f": Evil(function, "RAN.append('x')")}))
    with pytest.raises(InputError, match="not on the list"):
        read_pickle(path)
    assert not RAN


def test_nothing_on_the_list_can_be_bent(tmp_path):
    """Opcodes by hand: state for a function, attributes for a function, an object of a builtin, something outside."""
    reconstruct = b"cnumpy.core.multiarray\n_reconstruct\n"
    streams = {
        "change a function": b"\x80\x02}U\x01f" + reconstruct + b"}U\x01aK\x01sbs.",
        "not on the list": b"\x80\x02}U\x01fccopy_reg\n_reconstructor\n(c__builtin__\nset\nc__builtin__\nobject\nNtRs.",
        "bare object": b"\x80\x02}U\x01fc__builtin__\nobject\n)Rs.",
        "outside of itself": b"\x80\x02}U\x01fU\x03abcQs.",
        "encoded as": b"\x80\x02}U\x01fc_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tRs.",
        "no dictionary": b"\x80\x02]q\x00.",
        "damaged": b"\x80\x02}U\x01f",
    }
    for words, stream in streams.items():
        path = tmp_path / "bent.pkl"
        path.write_bytes(stream)
        with pytest.raises(InputError, match=words):
            read_pickle(path)


def test_a_damaged_array_is_named(tmp_path):
    stream = io.BytesIO(pickle.dumps({"f": np.arange(4.0)}, protocol=2))
    path = tmp_path / "short.pkl"
    path.write_bytes(stream.getvalue().replace(b"K\x04\x85", b"K\x05\x85"))
    with pytest.raises(InputError, match="damaged"):
        plain(read_pickle(path)["f"])
    with pytest.raises(InputError, match=r"nowhere\.pkl"):
        read_pickle(tmp_path / "nowhere.pkl")


def test_an_npz_file_serves_too_and_other_models_are_refused(tmp_path):
    content = arrays(*small_mesh())
    np.savez(tmp_path / "smpl.npz", **content)
    assert np.array_equal(read_smpl(tmp_path / "smpl.npz").template, content["v_template"])
    np.savez(tmp_path / "h.npz", **(content | {"weights": np.zeros((len(content["v_template"]), 52))}))
    with pytest.raises(InputError, match="24 joints: weights"):
        read_smpl(tmp_path / "h.npz")
    np.savez(tmp_path / "few.npz", **(content | {"shapedirs": content["shapedirs"][:, :, :4]}))
    with pytest.raises(InputError, match="shapedirs"):
        read_smpl(tmp_path / "few.npz")
    del content["posedirs"]
    np.savez(tmp_path / "less.npz", **content)
    with pytest.raises(InputError, match="lacks posedirs"):
        read_smpl(tmp_path / "less.npz")
    np.savez(tmp_path / "objects.npz", v_template=np.array([{}]))
    with pytest.raises(InputError, match="plain arrays"):
        read_smpl(tmp_path / "objects.npz")


def test_a_body_from_a_file_is_the_body_and_is_kept(smpl_file, tmp_path, monkeypatch):
    monkeypatch.setenv("FACEDNERF_CACHE", str(tmp_path / "cache"))
    np.save(tmp_path / "sdf.npy", synthetic_body(64).template_sdf.numpy())
    body = open_body(str(smpl_file), str(tmp_path / "sdf.npy"))
    (kept,) = (tmp_path / "cache" / "bodies").iterdir()
    again = load_body(kept)
    assert all(torch.equal(value, again.tensors()[name]) for name, value in body.tensors().items())
    assert torch.equal(body.template_sdf, synthetic_body(64).template_sdf)
    torch.testing.assert_close(body.rest_joints(torch.zeros(10)), synthetic_body(64).rest_joints(torch.zeros(10)))
    monkeypatch.setattr("facednerf_eva3d.bodyfile.smpl_body", None)  # the second time, it is not derived again
    assert torch.equal(open_body(str(smpl_file), str(tmp_path / "sdf.npy")).template, body.template)


def test_distances_are_derived_from_the_mesh(smpl_file):
    found = smpl_body(smpl_file, resolution=24).template_sdf
    true = synthetic_body(24).template_sdf
    near = true.abs() < 0.08
    assert found.shape == (24, 24, 24)
    assert torch.equal((found < 0)[true.abs() > 0.02], (true < 0)[true.abs() > 0.02])
    assert (found - true)[near & (true > 0)].abs().max() < 2 * EXTENT / 63  # a cell of the mesh
    assert (found - true)[near].abs().mean() < 0.007


def test_what_is_no_body_is_refused(tmp_path):
    for name in ("nobody", str(tmp_path / "none.pkl")):
        with pytest.raises(InputError, match="give 'synthetic'"):
            open_body(name)
    (tmp_path / "bad.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match="no body file"):
        open_body(str(tmp_path / "bad.safetensors"))
    save_body(synthetic_body(64), tmp_path / "good.safetensors")
    assert torch.equal(open_body(str(tmp_path / "good.safetensors")).weights, synthetic_body(64).weights)
    np.savez(tmp_path / "smpl.npz", **arrays(*small_mesh()))
    np.save(tmp_path / "flat.npy", np.zeros(3))
    with pytest.raises(InputError, match=r"flat\.npy"):
        smpl_body(tmp_path / "smpl.npz", tmp_path / "flat.npy")
    with pytest.raises(InputError, match="no file"):
        open_body(str(tmp_path / "smpl.npz"), str(tmp_path / "none.npy"))


def ball(radius: float, middle: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    axis = np.linspace(-1, 1, 30)
    field = np.linalg.norm(np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1), axis=-1) - 0.9
    vertices, faces, _, _ = marching_cubes(field, 0.0, spacing=(2 / 29,) * 3)
    unit = (vertices - 1) / np.linalg.norm(vertices - 1, axis=1, keepdims=True)
    return unit * radius + np.array(middle), faces.astype(np.int64)


def test_distances_to_two_balls_that_overlap():
    one, faces = ball(0.5, (-0.2, 0.1, 0.0))
    other, more = ball(0.4, (0.3, 0.0, 0.1))
    vertices, faces = np.concatenate([one, other]), np.concatenate([faces, more + len(one)])
    found = signed_distances(vertices, faces, 32)
    axis = np.linspace(-EXTENT, EXTENT, 32)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    first, second = (
        np.linalg.norm(points - [-0.2, 0.1, 0], axis=-1) - 0.5,
        np.linalg.norm(points - [0.3, 0, 0.1], axis=-1) - 0.4,
    )
    true = np.minimum(first, second)
    assert ((found < 0) == (true < 0))[np.abs(true) > 5e-3].all(), "where they overlap is inside"
    outside = true > 0
    assert np.abs(found - true)[outside].max() < 5e-3


def test_unsigned_distances_are_those_of_every_triangle():
    vertices, faces = small_mesh()
    triangles = vertices[faces]
    points = np.random.default_rng(0).uniform(-EXTENT, EXTENT, (60, 3))
    found = unsigned_distances(points, triangles)
    steps = np.linspace(0, 1, 24)
    u, v = (grid[np.add.outer(steps, steps) <= 1] for grid in np.meshgrid(steps, steps, indexing="ij"))
    for point, distance in zip(points, found, strict=True):
        near = triangles[np.argsort(np.linalg.norm(triangles.mean(axis=1) - point, axis=1))[:200]]
        a, b, c = near.transpose(1, 0, 2)
        dense = a[:, None] + u[:, None] * (b - a)[:, None] + v[:, None] * (c - a)[:, None]
        sampled = np.linalg.norm(dense - point, axis=2).min()
        assert distance <= sampled + 1e-9
        assert distance >= sampled - 5e-3


def test_a_mesh_that_has_no_inside_is_refused():
    vertices, faces = small_mesh()
    with pytest.raises(InputError, match="not closed"):
        signed_distances(vertices, faces[1:], 16)
    with pytest.raises(InputError, match="inside out"):
        signed_distances(vertices, faces[:, ::-1], 16)
    with pytest.raises(InputError, match="lie within"):
        signed_distances(vertices * 2, faces, 16)
    with pytest.raises(InputError, match="vertices up to"):
        signed_distances(vertices[:50], faces, 16)
