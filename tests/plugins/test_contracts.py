"""Our own plugins keep the contracts that strangers inherit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from facednerf_arcface.identity import ArcFace
from facednerf_arcface.iresnet import IResNet
from facednerf_clip.encoder import Encoder
from facednerf_clip.encoder import load as load_clip
from facednerf_clip.guidance import ClipGuidance
from facednerf_clip.options import ClipOptions
from facednerf_eg3d.generator import Eg3d
from facednerf_inverters.pti import PivotalTuning
from facednerf_inverters.wplus import WPlus
from facednerf_sds.guidance import ScoreDistillation
from facednerf_sds.options import SdsOptions
from facednerf_sds.pipeline import Pipeline, load
from facednerf_starter.detector.finder import FaceFinder
from facednerf_starter.plugin import FOLDER

from facednerf_core.interfaces import Detector, Generator, Guidance, Identity, Inverter
from facednerf_core.testing import DetectorContract, GeneratorContract, GuidanceContract, IdentityContract, InverterContract
from facednerf_core.views import Orbit
from tests.plugins.eg3d_goldens import tiny
from tests.plugins.test_clip import write_folder
from tests.plugins.test_sds import write_pipeline
from tests.smooth import he
from tests.toy import ToyGenerator


class TestEg3d(GeneratorContract):
    nominal = 0.0  # random weights draw no faces

    def make(self) -> Generator:
        return Eg3d(tiny(), Orbit())


class TestArcFace(IdentityContract):
    size = (128, 112)

    def make(self) -> Identity:
        return ArcFace(he(IResNet(widths=(4, 6, 8, 8), units=(1, 1, 1, 1), embedding=16)).eval())


class TestScoreDistillation(GuidanceContract):
    prompt = "a man with glasses"
    other_prompt = "blue hair"
    pipeline: Pipeline

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def written(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        folder: Path = write_pipeline(tmp_path_factory.mktemp("pipeline"))
        cls.pipeline = load(folder, torch.device("cpu"), torch.float32)

    def make(self) -> Guidance:
        return ScoreDistillation(self.pipeline, SdsOptions())


class TestClipGuidance(GuidanceContract):
    encoder: Encoder

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def written(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        cls.encoder = load_clip(write_folder(tmp_path_factory.mktemp("clip")), torch.device("cpu"))

    def make(self) -> Guidance:
        return ClipGuidance(self.encoder, ClipOptions())


class TestWPlus(InverterContract):
    def make(self) -> Inverter:
        return WPlus()

    def generator(self) -> Generator:
        return ToyGenerator()


class TestPivotalTuning(TestWPlus):
    def make(self) -> Inverter:
        return PivotalTuning()


class TestFaceFinder(DetectorContract):
    def make(self) -> Detector:
        names = ("detector.safetensors", "detector.json", "segmenter.safetensors")
        return FaceFinder.from_files(*(FOLDER / name for name in names), torch.device("cpu"))
