"""CKA, attention distances and gates against plain readings; the page and the picture of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from micro import make_run, make_task, saved
from PIL import Image
from small_vlmo import small_vlmo

from unimo.analysis import layers_page
from unimo.analysis.layers import Layers, attention_distance, collect, linear_cka
from unimo.errors import DataError
from unimo.tasks.base import to_tensors


def hsic(k: np.ndarray, loops: np.ndarray) -> float:
    """tr(K H L H), of which the HSIC is a multiple, by its definition."""
    count = len(k)
    centre = np.eye(count) - np.ones((count, count)) / count
    return float(np.trace(k @ centre @ loops @ centre))


@pytest.mark.parametrize("widths", [(5, 5), (3, 40)])
def test_cka_is_the_normalised_hsic_of_linear_kernels(widths: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, widths[0])) + 3
    y = x[:, :2] @ rng.normal(size=(2, widths[1])) + rng.normal(size=(12, widths[1]))
    k, other = x @ x.T, y @ y.T
    assert linear_cka(x, y) == pytest.approx(hsic(k, other) / np.sqrt(hsic(k, k) * hsic(other, other)))


def test_cka_knows_no_axes_and_no_scale() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20, 6))
    turned, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    assert linear_cka(x, 7 * x @ turned - 2) == pytest.approx(1.0)
    assert linear_cka(x, np.ones((20, 3))) == pytest.approx(0.0)


def test_distance_by_hand() -> None:
    places = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    weights = np.array(
        [[[0.5, 0.25, 0.0], [0.0, 1.0, 0.0], [0.2, 0.0, 0.2]], [[0, 1, 0], [1, 0, 0], [1, 0, 0]]]
    )
    near = (5 * 0.25 / 0.75 + 0 + 1 * 0.5) / 3
    assert attention_distance(weights, places) == pytest.approx([near, (5 + 5 + 1) / 3])


@pytest.fixture(scope="module")
def pairs() -> tuple[Any, list[Any]]:
    """A random UNIMO-3 and two batches of pairs."""
    run = make_run("retrieval", train={"eval_batch_size": 3}, data={"scenes": {"val_images": 5}})
    task, _, data = make_task(run)
    task.eval()
    return task.model, list(data.eval_loader("val", run))[:2]


def found(pairs: tuple[Any, list[Any]]) -> Layers:
    model, batches = pairs
    return collect("small", model, batches, lambda items, what: items)


def test_every_tower_layer_is_compared_by_the_mean_of_its_rows(pairs: tuple[Any, list[Any]]) -> None:
    model, batches = pairs
    layers = found(pairs)
    assert {name: table.shape for name, table in layers.cka.items()} == {
        ("text", "text"): (3, 3),
        ("image", "image"): (3, 3),
        ("text", "image"): (3, 3),
    }
    means: dict[str, list[np.ndarray]] = {"text": [], "image": []}
    for batch in map(to_tensors, batches):
        with paddle.no_grad():
            text = (
                model.encode_text(batch.input_ids, batch.attention_mask, layers=True).text_layers[1].numpy()
            )
            image = model.encode_image(batch.images, layers=True).image_layers[2].numpy()
        for row, mask in zip(text, batch.attention_mask.numpy(), strict=True):
            means["text"].append(row[mask == 1].mean(axis=0))
        means["image"] += list(image.mean(axis=1))
    expected = linear_cka(np.array(means["text"]), np.array(means["image"]))
    assert layers.cka["text", "image"][1, 2] == pytest.approx(expected, abs=1e-5)
    np.testing.assert_allclose(np.diag(layers.cka["image", "image"]), 1.0, atol=1e-9)
    assert layers.pairs == len(means["text"])


def test_distances_of_heads_in_towers_and_fusion(pairs: tuple[Any, list[Any]]) -> None:
    model, batches = pairs
    layers = found(pairs)
    assert set(layers.distances) == {
        "text in text", "image in image", "text in fusion.text self", "image in fusion.image self",
    }  # fmt: skip
    expected = []
    for batch in map(to_tensors, batches):
        with paddle.no_grad():
            maps = model.encode_image(batch.images, attentions=True).attentions["image.2"].numpy()
        side = round((maps.shape[-1] - 1) ** 0.5)
        y, x = np.divmod(np.arange(side**2), side)
        places = np.stack([x, y], 1) / side
        expected += [attention_distance(each[:, 1:, 1:], places) for each in maps]
    np.testing.assert_allclose(layers.distances["image in image"][2], np.mean(expected, axis=0), atol=1e-5)


def test_gates_are_what_the_links_let_through(pairs: tuple[Any, list[Any]]) -> None:
    model, batches = pairs
    layers, links = found(pairs), model.fusion.text_links
    assert set(layers.gates) == {"text", "image"}
    for layer, numbers in enumerate(links.table, start=1):
        linked = ~np.isnan(layers.gates["text"][layer - 1])
        assert np.flatnonzero(linked).tolist() == (list(numbers) if str(layer) in links.gates else [])
    batch = to_tensors(batches[0])
    with paddle.no_grad():
        text = model.encode_text(batch.input_ids, batch.attention_mask)
        fused = text.links["start"]
        gates = links.open_gates(1, fused, text.links)
        total = sum(gate * text.links[f"state.{k}"] for k, gate in gates.items()) / len(gates)
        np.testing.assert_allclose(
            links(1, fused, text.links).numpy(), links.norms[0](fused + total).numpy(), atol=1e-5
        )


def test_a_model_without_towers_has_distances_alone() -> None:
    model = small_vlmo(text={"vocab_size": 300})
    run = make_run("retrieval", data={"max_text_len": 14})
    batches = list(make_task(run)[2].eval_loader("val", run))[:1]
    layers = collect("vlmo", model, batches, lambda items, what: items)
    assert not layers.cka and not layers.gates
    assert set(layers.distances) == {"text in fusion", "image in fusion"}


def test_one_pair_is_too_few(pairs: tuple[Any, list[Any]]) -> None:
    with pytest.raises(DataError, match="0 pairs of image and text; expected two or more"):
        collect("small", pairs[0], [], lambda items, what: items)


def test_page_and_picture_have_every_figure(pairs: tuple[Any, list[Any]], tmp_path: Path) -> None:
    layers = found(pairs)
    picture, page = layers_page.write([layers, layers], tmp_path, "a <source>")
    content = page.read_text()
    cells = [float(value) for value in re.findall(r'title="([\d.]+)"', content)]
    values = [*layers.cka.values(), *(np.array(list(x.values())) for x in layers.distances.values())]
    values += layers.gates.values()
    expected = np.concatenate([table[~np.isnan(table)] for table in values])
    np.testing.assert_allclose(sorted(cells), sorted(np.repeat(expected, 2)), atol=1e-4)
    assert "a &lt;source&gt;" in content and content.count("How to read it.") == 3
    assert Image.open(picture).size[1] > Image.open(picture).size[0]
    assert f"{layers.pairs} pairs" in layers_page.headline(layers)


def test_the_tool_draws_two_models(tmp_path: Path, tool: Any) -> None:
    model = saved("pretrain", tmp_path / "run")
    code, out, error = tool(
        "visualize", "layers", "--model", str(model), "--pairs", "3", "--out", str(tmp_path / "out")
    )
    assert code == 0, error
    assert "3 pairs" in out and str(tmp_path / "out" / "layers.html") in out
