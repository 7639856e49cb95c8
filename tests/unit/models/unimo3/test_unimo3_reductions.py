"""The paper's idea switched off gives METER and BridgeTower, and its readings relate as they should.

METER and BridgeTower are written here a second time, plainly and from their own papers, on the same
parameters.
"""

import paddle
from small_models import inputs, small_model

from unimo.models.unimo3.model import Unimo3
from unimo.nn.attention import additive_mask


def _difference(first, second) -> float:
    pairs = ((first.fused_text, second[0]), (first.fused_image, second[1]))
    return max(float((a - b).abs().max()) for a, b in pairs)


def _features(model: Unimo3, pixels, ids, mask):
    """Projected states of all layers of both towers."""
    text, _ = model.text(ids, mask)
    image, _ = model.vision(pixels)
    rows = model.type_embedding.weight
    return (
        [model.text_transform(state) + rows[0] for state in text],
        [model.image_transform(model.vision.ln_post(state)) + rows[1] for state in image],
    )


def _co_attention(model: Unimo3, number: int, x, y, mask):
    text_layer, image_layer = model.fusion.text_layers[number], model.fusion.image_layers[number]
    new_x, _, _ = text_layer(x, y, mask, None)
    new_y, _, _ = image_layer(y, x, None, mask)
    return new_x, new_y


def _plain_meter(model: Unimo3, pixels, ids, mask):
    text, image = _features(model, pixels, ids, mask)
    x, y = text[-1], image[-1]
    for number in range(len(model.fusion.text_layers)):
        x, y = _co_attention(model, number, x, y, additive_mask(mask))
    return x, y


def _plain_bridgetower(model: Unimo3, pixels, ids, mask):
    text, image = _features(model, pixels, ids, mask)
    depth = len(model.fusion.text_layers)
    text, image = text[-depth:], image[-depth:]
    text_norms, image_norms = model.fusion.text_links.norms, model.fusion.image_links.norms
    x, y = text_norms[0](text[0]), image_norms[0](image[0])
    x, y = _co_attention(model, 0, x, y, additive_mask(mask))
    for number in range(1, depth):
        x = text_norms[number](text[number] + x)
        y = image_norms[number](image[number] + y)
        x, y = _co_attention(model, number, x, y, additive_mask(mask))
    return x, y


@paddle.no_grad()
def test_without_links_it_is_meter():
    model, batch = small_model("unimo3_tiny", fusion={"link_range": "none"}), inputs()
    assert _difference(model(*batch), _plain_meter(model, *batch)) < 1e-5


@paddle.no_grad()
def test_meter_leaves_out_the_last_vision_block():
    model, batch = small_model("meter_tiny"), inputs()
    assert len(model.vision.layers) == 3
    assert _difference(model(*batch), _plain_meter(model, *batch)) < 1e-5


@paddle.no_grad()
def test_open_bridges_are_bridgetower():
    options = {"link_range": "bridge", "gate_dim": "none", "first_layer_gate": False}
    model = small_model("unimo3_tiny", fusion=options)
    batch = inputs()
    assert _difference(model(*batch), _plain_bridgetower(model, *batch)) < 1e-5


@paddle.no_grad()
def test_bridgetower_preset_has_those_options():
    model, batch = small_model("bridgetower_tiny"), inputs()
    assert _difference(model(*batch), _plain_bridgetower(model, *batch)) < 1e-5


@paddle.no_grad()
def test_gates_matter():
    batch = inputs()
    gated = small_model("unimo3_tiny", fusion={"link_range": "bridge", "first_layer_gate": False})
    assert _difference(gated(*batch), _plain_bridgetower(gated, *batch)) > 1e-2


@paddle.no_grad()
def test_wide_open_gates_equal_no_gates():
    batch = inputs()
    gated, open_ = small_model(), small_model(fusion={"gate_dim": "none"})
    parameters = {name: value for name, value in gated.state_dict().items() if ".gates." not in name}
    open_.set_state_dict(parameters)
    for links in (gated.fusion.text_links, gated.fusion.image_links):
        for gate in links.gates.values():
            gate.bias.set_value(paddle.full_like(gate.bias, 60.0))
    second = open_(*batch)
    assert _difference(gated(*batch), (second.fused_text, second.fused_image)) < 1e-5


@paddle.no_grad()
def test_external_layers_do_not_read_the_towers():
    """Preset d: changing a gate or a link after the internal layers is impossible; there are none."""
    model = small_model("unimo3_tiny_d")
    assert len(model.fusion.text_links.norms) == 2
    assert list(model.fusion.text_links.gates) == ["1", "2"]
    pixels, ids, mask = inputs()
    text, image = model.encode_text(ids, mask), model.encode_image(pixels)
    state = model.interact(text, image)
    x, y = state.text, state.image
    fused = model.fuse(text, image)
    plain = _co_attention(model, 2, x, y, additive_mask(mask))
    assert _difference(fused, plain) < 1e-6
