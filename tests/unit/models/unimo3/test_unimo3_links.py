"""Links: what a fusion layer may read, the gate's arithmetic, and its hand-written gradient."""

import numpy as np
import paddle
from small_models import inputs, small_config, small_model

from unimo.models.unimo3.cross_layer import CrossLayerLinks, _GatedSum, gated_sum
from unimo.nn.outputs import Encoded


def _link_inputs(model, text_states, image_states, mask, layer):
    """Z tilde of both streams at internal layer `layer`, from given tower states."""
    seen = []
    links = model.fusion.text_links
    forward = links.forward

    def spy(number, fused, features):
        new = forward(number, fused, features)
        seen.append(new)
        return new

    links.forward = spy
    text = Encoded(text=text_states[-1], text_mask=mask, links=model.link_text(text_states))
    image = Encoded(image=image_states[-1], links=model.link_image(image_states))
    model.interact(text, image)
    links.forward = forward
    return seen[layer - 1].numpy()


@paddle.no_grad()
def test_causal_links_never_read_above_d():
    model = small_model()
    pixels, ids, mask = inputs()
    text, image = model.text(ids, mask)[0], model.vision(pixels)[0]
    table = model.fusion.text_links.table
    for layer in (1, 2, 3):
        before = _link_inputs(model, text, image, mask, layer)
        for number in range(1, len(text)):
            changed = [state + 1.0 if k == number else state for k, state in enumerate(text)]
            changed_image = [state * 1.5 if k == number else state for k, state in enumerate(image)]
            after = _link_inputs(model, changed, changed_image, mask, layer)
            if number > table[layer - 1][-1]:
                np.testing.assert_array_equal(before, after)
            else:
                assert np.abs(before - after).max() > 1e-4


def test_gated_sum_and_its_gradient():
    """The PyLayer equals Paddle's own gradient of the same expression."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((2, 4, 5)).astype("float32") for _ in range(7)]
    weight = paddle.to_tensor(rng.standard_normal((2, 4, 5)).astype("float32"))
    results = []
    for function in (lambda query, *pairs: gated_sum(query, pairs[::2], pairs[1::2]), _GatedSum.apply):
        tensors = [paddle.to_tensor(a, stop_gradient=False) for a in arrays]
        value = function(*tensors)
        (value * weight).sum().backward()
        results.append([value.numpy(), *(t.grad.numpy() for t in tensors)])
    for first, second in zip(*results, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_gated_sum_of_frozen_states():
    query = paddle.ones([1, 2, 3])
    query.stop_gradient = False
    _GatedSum.apply(query, paddle.ones([1, 2, 3]), paddle.zeros([1, 2, 3])).sum().backward()
    np.testing.assert_allclose(query.grad.numpy(), 0.19661194, atol=1e-6)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _norm(x, norm):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * norm.weight.numpy() + norm.bias.numpy()


def _links():
    """Links of a 4-layer tower, their stack of features, and Z."""
    config = small_config().fusion
    links = CrossLayerLinks(config, 4, 0)
    rng = np.random.default_rng(3)
    for parameter in links.parameters():
        parameter.set_value(rng.normal(0, 0.5, parameter.shape).astype("float32"))
    stack = rng.standard_normal((2, len(links.used), 3, 16)).astype("float32")
    return links, stack, rng.standard_normal((2, 3, 16)).astype("float32")


def _features(links, stack):
    states = {k: paddle.to_tensor(stack[:, number]) for number, k in enumerate(links.used)}
    return {**{f"state.{k}": state for k, state in states.items()}, **links.gate_logits(states)}


def _run(links, layer, stack, fused):
    return links(layer, paddle.to_tensor(fused), _features(links, stack)).numpy()


def test_equations_8_and_9_in_numpy():
    links, stack, z = _links()
    for layer, depth in ((1, 2), (2, 3), (3, 4)):
        gate, tower = links.gates[str(layer)], stack[:, :depth]
        g = _sigmoid(tower @ gate.weight.numpy() + gate.bias.numpy() + z[:, None])
        expected = _norm(z + (g * tower).mean(1), links.norms[layer - 1])
        np.testing.assert_allclose(_run(links, layer, stack, z), expected, atol=2e-5)


def test_the_sum_as_printed_gives_the_same_numbers():
    """LayerNorm divides K out of K Z + sum g T, up to its epsilon."""
    links, stack, z = _links()
    gate, tower = links.gates["3"], stack[:, :4]
    g = _sigmoid(tower @ gate.weight.numpy() + gate.bias.numpy() + z[:, None])
    printed = _norm((z[:, None] + g * tower).sum(1), links.norms[2])
    np.testing.assert_allclose(_run(links, 3, stack, z), printed, atol=1e-4)


def test_each_linked_layer_has_gates_of_its_own():
    links, _, _ = _links()
    assert list(links.gates) == ["1", "2", "3"]
    assert list(links.gate_logits({k: paddle.ones([1, 1, 16]) for k in links.used})) == [
        *("logits.1.1", "logits.1.2", "logits.2.1", "logits.2.2", "logits.2.3"),
        *("logits.3.1", "logits.3.2", "logits.3.3", "logits.3.4"),
    ]
