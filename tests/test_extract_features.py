"""The extraction tool with a real network: killed and run again, and on two ranks, gives the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image

from ppdet_features.detector import FasterRCNN, load_config
from ppdet_features.extract import ExtractionSettings, detect_all, load_extractor, read_image
from unimo.data.image_list import open_images
from unimo.data.regions.store import RegionStore
from unimo.data.scenes.scene import make_scene, render
from unimo.weights.files import write_safetensors
from unimo.weights.layers import tensors_of

CONFIG = "ppdet_features/configs/scenes_tiny.yaml"
PICTURES, PER_SHARD = 30, 3


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """AnnotatedImages of three shapes, one of them damaged, and seeded random weights."""
    folder = tmp_path_factory.mktemp("job")
    (folder / "images").mkdir()
    for number in range(PICTURES):
        rng = np.random.default_rng(number)
        size = ((64, 64), (80, 60), (48, 64))[rng.integers(3)]
        render(make_scene(rng)).resize(size, Image.Resampling.BICUBIC).save(
            folder / "images" / f"{number:02d}.png"
        )
    (folder / "images" / "11.png").write_bytes(b"damaged")
    paddle.seed(0)
    detector = FasterRCNN(load_config(root / CONFIG))
    write_safetensors(folder / "weights.safetensors", tensors_of(detector))
    return folder


def words(work: Path, out: Path) -> list[str]:
    options = {
        "--images": work / "images",
        "--detector": CONFIG,
        "--weights": work / "weights.safetensors",
        "--out": out,
        "--images-per-shard": PER_SHARD,
        "--batch-size": 2,
        "--max-bad-rate": 0.1,
    }
    return [str(word) for option in options.items() for word in option]


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **changes}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(work: Path, root: Path) -> Path:
    """The store of an unbroken run."""
    command = [sys.executable, "tools/extract_features.py", *words(work, work / "whole")]
    done = subprocess.run(command, cwd=root, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{PICTURES - 1} images" in done.stdout
    return work / "whole"


def test_killed_at_a_random_moment_and_run_again(work: Path, whole: Path, root: Path) -> None:
    out, chance = work / "killed", random.Random(os.getpid())
    command = [sys.executable, "tools/extract_features.py", *words(work, out)]
    wanted = chance.randrange(1, PICTURES // PER_SHARD)
    process = subprocess.Popen(command, cwd=root, env=environment(), stderr=subprocess.DEVNULL)
    while len(list(out.glob("regions-*"))) < wanted and process.poll() is None:
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.1))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "index.json").exists(), "killed too late to show anything"
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("regions-*")}
    assert len(stamps) >= wanted
    assert subprocess.run(command, cwd=root, env=environment(), check=False).returncode == 0
    assert content(out) == content(whole)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items()), "done again"


def test_two_ranks_write_what_one_writes(work: Path, whole: Path, root: Path) -> None:
    out = work / "ranks"
    command = [sys.executable, "-m", "unimo.training.launch", str(root / "tools" / "extract_features.py")]
    done = subprocess.run(
        [*command, *words(work, out)],
        cwd=root,
        env=environment(NPROC_PER_NODE="2"),
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(f"{PICTURES - 1} images") == 1  # rank 0 prints the result, whoever ended last
    assert content(out) == content(whole)


def test_batches_of_the_network_equal_single_pictures(work: Path, whole: Path, root: Path) -> None:
    images = open_images(str(work / "images"))
    extractor = load_extractor(str(root / CONFIG), str(work / "weights.safetensors"))
    single = ExtractionSettings(batch_size=1)
    store = RegionStore(whole)
    assert [entry.image_id for entry in store.skipped] == ["11.png"]
    for stored in store.images():
        number = int(stored.image_id[:2])
        ((_, alone),) = detect_all([read_image(images, extractor, number)], extractor, single)
        # Half precision rounds to 5e-4 of a value; values that are equal to 1e-5 differ by one such step.
        for one, two in (
            (stored.regions.features, alone.regions.features),
            (stored.regions.class_probs, alone.regions.class_probs),
        ):
            np.testing.assert_allclose(one, two.astype(np.float32), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(stored.regions.boxes, alone.regions.boxes, atol=1e-3)
        np.testing.assert_array_equal(stored.labels, alone.labels)
