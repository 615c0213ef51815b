"""Layers: their names and state, what they compute, how they begin, and the buffer they share with optimizers."""

import copy
import math
import pickle

import numpy as np
import pytest

from scratchgen import init, nn, ops
from scratchgen.gradcheck import gradcheck
from scratchgen.nn import (
    ACTIVATIONS,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Dropout,
    GaussianNoise,
    Maxout,
    MaxPool2d,
    Module,
    Parameter,
    Reshape,
    Sequential,
    Upsample2d,
    flatten,
    mlp,
)
from scratchgen.optim import SGD, Adam
from scratchgen.random import RandomStream
from scratchgen.tensor import Tensor, apply

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
every_activation = pytest.mark.parametrize("activation", ["identity", *nn.ACTIVATIONS])

DEFINITIONS = {
    "identity": lambda a: a,
    "relu": lambda a: np.maximum(a, 0),
    "leaky_relu": lambda a: np.where(a > 0, a, 0.2 * a),
    "elu": lambda a: np.where(a > 0, a, np.exp(a) - 1),
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "tanh": lambda a: (np.exp(2 * a) - 1) / (np.exp(2 * a) + 1),
    "softplus": lambda a: np.log(1 + np.exp(a)),
    "gelu": lambda a: a * (1 + np.vectorize(math.erf, otypes=[float])(a / math.sqrt(2))) / 2,
}


class Zoo(Module):
    """A bit of everything that can hold parameters."""

    def __init__(self, rng, dtype=np.float32):
        self.scale = Parameter(np.ones(2), dtype)
        self.body = Sequential(Dense(3, 2, rng, "tanh", dtype=dtype), Dropout(0.5))
        self.note = "no parameter"
        self.heads = [Dense(2, 1, rng, dtype=dtype), Parameter(np.zeros((2, 2)), dtype)]


ZOO = ["scale", "body.layers.0.weight", "body.layers.0.bias", "heads.0.weight", "heads.0.bias", "heads.1"]


# ---- names and state ----


def test_named_parameters_come_in_the_order_of_definition(rng):
    zoo = Zoo(rng)
    assert list(zoo.named_parameters()) == ZOO
    assert [id(p) for p in zoo.parameters()] == [id(p) for p in zoo.named_parameters().values()]
    assert zoo.parameters()[1] is zoo.body.layers[0].weight
    assert zoo.parameters()[5] is zoo.heads[1]


class Nested(Module):
    """Parameters and modules in every container, and containers in containers."""

    def __init__(self, rng):
        self.pair = (Parameter([1.0]), Dense(2, 1, rng))
        self.heads = {"mean": Dense(2, 1, rng), "scale": Parameter([2.0]), 3: Parameter([3.0]), "note": "none"}
        self.deep = [({"a": Parameter([4.0])}, 5.0), []]


def test_named_parameters_are_found_in_tuples_and_dicts(rng):
    nested = Nested(rng)
    names = ["pair.0", "pair.1.weight", "pair.1.bias", "heads.mean.weight", "heads.mean.bias", "heads.scale", "heads.3"]
    assert list(nested.named_parameters()) == [*names, "deep.0.0.a"]
    assert nested.named_parameters()["heads.scale"] is nested.heads["scale"]
    nested.eval()
    assert not nested.pair[1].training
    assert not nested.heads["mean"].training


def test_named_parameters_refuse_two_of_one_name():
    module = Module()
    module.heads = {"1": Parameter([1.0]), 1: Parameter([2.0])}
    with pytest.raises(ValueError, match=r"Module has two parameters named heads\.1$"):
        module.named_parameters()


@both_dtypes
def test_load_state_dict_restores_state_dict(rng, dtype):
    source, target = Zoo(rng, dtype), Zoo(rng, dtype)
    state = source.state_dict()
    assert list(state) == ZOO
    target.load_state_dict(dict(reversed(state.items())))  # by name, not by order
    for mine, other in zip(target.parameters(), source.parameters(), strict=True):
        np.testing.assert_array_equal(mine.data, other.data)
        assert mine.dtype == dtype
        assert not np.shares_memory(mine.data, other.data)
    state["scale"][...] = 7  # a copy: nobody sees it
    assert (source.scale.data == 1).all()
    assert (target.scale.data == 1).all()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("heads.1", None, r"missing \['heads.1'\], unexpected \[\]"),
        ("heads.2", np.ones(2, np.float32), r"missing \[\], unexpected \['heads.2'\]"),
        ("heads.1", np.ones(4, np.float32), r"heads.1 is \(2, 2\) float32, not \(4,\) float32"),
        ("heads.1", np.ones((2, 2)), r"heads.1 is \(2, 2\) float32, not \(2, 2\) float64"),
    ],
    ids=["missing", "unexpected", "shape", "dtype"],
)
def test_load_state_dict_refuses_a_wrong_state_and_changes_nothing(rng, name, value, message):
    zoo = Zoo(rng)
    before = zoo.state_dict()
    state = {key: array + 1 for key, array in before.items() if key != name}
    if value is not None:
        state[name] = value
    with pytest.raises(ValueError, match=message):
        zoo.load_state_dict(state)
    assert all(np.array_equal(array, before[key]) for key, array in zoo.state_dict().items())
    assert all(p.version == 0 for p in zoo.parameters())


def test_train_and_eval_reach_every_module(rng):
    zoo = Zoo(rng)
    modules = [zoo, zoo.body, *zoo.body.layers, zoo.heads[0]]
    zoo.eval()
    assert not any(module.training for module in modules)
    zoo.train()
    assert all(module.training for module in modules)


def test_module_without_forward_says_so(rng):
    with pytest.raises(NotImplementedError, match="Zoo has no forward"):
        Zoo(rng)(Tensor([1.0]))


# ---- what layers compute ----


def test_activations_each_have_a_definition_here():
    assert DEFINITIONS.keys() == {"identity", *nn.ACTIVATIONS}


@pytest.mark.usefixtures("kernel_set")
@every_activation
@both_dtypes
@pytest.mark.parametrize("lead", [(), (4,), (2, 0), (2, 3)], ids=str)
def test_dense_matches_numpy(rng, activation, dtype, lead):
    layer = Dense(3, 5, rng, activation, dtype=dtype)
    layer.bias.write(rng.standard_normal(5).astype(dtype))
    x = Tensor(rng.standard_normal((*lead, 3)), dtype=dtype)
    weight, bias = (p.data.astype(np.float64) for p in (layer.weight, layer.bias))
    out = layer(x)
    assert out.dtype == dtype
    expected = DEFINITIONS[activation](x.data.astype(np.float64) @ weight + bias)
    np.testing.assert_allclose(out.data, expected, rtol=0, atol=1e-14 if dtype == np.float64 else 2e-6)


@pytest.mark.usefixtures("kernel_set")
@every_activation
def test_dense_gradients_match_finite_differences(activation):
    rng = np.random.default_rng(4)
    layer = Dense(3, 5, rng, activation, dtype=np.float64)
    layer.bias.write(rng.standard_normal(5))
    x = Tensor(rng.standard_normal((4, 3)), requires_grad=True)
    preactivation = x.data @ layer.weight.data + layer.bias.data
    assert np.abs(preactivation).min() > 0.01  # no kink within reach of a difference
    gradcheck(lambda *_: layer(x), x, layer.weight, layer.bias)


@every_activation
def test_dense_initializes_weights_for_its_activation(activation):
    def draw(function):
        return function(np.random.default_rng(3), 4, 6)

    layer = Dense(4, 6, np.random.default_rng(3), activation, dtype=np.float64)
    like_relu = activation in ("relu", "leaky_relu", "elu", "gelu")
    np.testing.assert_array_equal(layer.weight.data, draw(init.he_normal if like_relu else init.glorot_uniform))
    np.testing.assert_array_equal(layer.bias.data, np.zeros(6))
    chosen = Dense(4, 6, np.random.default_rng(3), activation, init.uniform, np.float64)
    np.testing.assert_array_equal(chosen.weight.data, draw(init.uniform))


def test_dense_refuses_an_unknown_activation(rng):
    with pytest.raises(ValueError, match="activation 'relo' is not one of identity, relu, leaky_relu, elu, sigmoid"):
        Dense(2, 2, rng, "relo")


@both_dtypes
def test_sequential_and_mlp_apply_layer_after_layer(rng, dtype):
    net = mlp((3, 5, 4, 2), "tanh", rng, dtype)
    assert [layer.weight.shape for layer in net.layers] == [(3, 5), (5, 4), (4, 2)]
    assert {layer.activation for layer in net.layers} == {"tanh"}
    assert {p.dtype for p in net.parameters()} == {np.dtype(dtype)}
    x = Tensor(rng.standard_normal((6, 3)), dtype=dtype)
    by_hand = x.data
    for layer in net.layers:
        by_hand = np.tanh(by_hand @ layer.weight.data)
    np.testing.assert_allclose(net(x).data, by_hand, atol=1e-6)
    assert mlp((3,), "tanh", rng)(x) is x


# ---- dropout ----


def dropped(net, x, seed):
    """A layer that draws random numbers, of x."""
    net.set_random(RandomStream(seed))
    return net(x)


@pytest.mark.usefixtures("kernel_set")
@both_dtypes
@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_dropout_in_training_zeroes_at_its_rate_and_scales_the_rest(rng, dtype, rate):
    n = 20_000
    x = Tensor(rng.uniform(0.5, 1.5, n), requires_grad=True, dtype=dtype)
    out = dropped(Dropout(rate), x, 1)
    assert out.dtype == dtype
    kept = out.data != 0
    np.testing.assert_allclose(out.data[kept], x.data[kept] / (1 - rate), rtol=1e-6)
    assert abs(kept.mean() - (1 - rate)) < 4 * math.sqrt(rate * (1 - rate) / n)
    noise = out.data - x.data  # its mean is 0, its variance x^2 rate / (1 - rate)
    variance = x.data**2 * rate / (1 - rate)
    assert abs(noise.mean()) < 4 * math.sqrt(variance.mean() / n)
    assert (noise**2).mean() == pytest.approx(variance.mean(), rel=0.05)
    out.backward(np.full(n, 3.0, dtype))
    np.testing.assert_allclose(x.grad, np.where(kept, 3 / (1 - rate), 0), rtol=1e-6)


@pytest.mark.usefixtures("kernel_set")
@both_dtypes
def test_gaussian_noise_is_added_in_training(rng, dtype):
    n, sd = 20_000, 0.3
    x = Tensor(rng.standard_normal(n), requires_grad=True, dtype=dtype)
    out = dropped(GaussianNoise(sd), x, 1)
    assert out.dtype == dtype
    noise = out.data - x.data
    assert abs(noise.mean()) < 4 * sd / math.sqrt(n)
    assert noise.std() == pytest.approx(sd, rel=0.03)
    assert np.mean(np.abs(noise) > 2 * sd) == pytest.approx(0.0455, rel=0.15)  # of a normal distribution
    out.backward(np.full(n, 3.0, dtype))
    np.testing.assert_array_equal(x.grad, np.full(n, 3.0))


def test_gaussian_noise_of_layers_of_a_module_differs():
    x, sd, n = Tensor(np.zeros(10_000)), 0.5, 10_000
    twice = dropped(Sequential(GaussianNoise(sd), Sequential(GaussianNoise(sd))), x, 1).data
    assert abs(twice.var() - 2 * sd**2) < 4 * 2 * sd**2 * math.sqrt(2 / n)  # four times for one and the same noise


def test_gaussian_noise_refuses_a_negative_deviation():
    with pytest.raises(ValueError, match=r"the standard deviation of noise must be at least 0, not -0\.1"):
        GaussianNoise(-0.1)


RANDOM_LAYERS = pytest.mark.parametrize("kind", [Dropout, GaussianNoise])


@RANDOM_LAYERS
def test_random_layers_draw_anew_and_repeat_from_their_seed(kind):
    x = Tensor(np.ones(100))
    layer = kind(0.5)
    first, second = dropped(layer, x, 1).data, layer(x).data
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(dropped(layer, x, 1).data, first)


@RANDOM_LAYERS
def test_random_layers_do_nothing_in_evaluation(kind):
    x = Tensor(np.ones(5))
    layer, never = kind(0.5), kind(0)
    layer.eval()
    assert layer(x) is x
    assert never(x) is x


@RANDOM_LAYERS
def test_random_layers_without_a_random_stream_say_so(kind):
    with pytest.raises(RuntimeError, match=r"call model.set_random\(RandomStream\(seed\)\) first"):
        kind(0.5)(Tensor(np.ones(5)))


@pytest.mark.parametrize("rate", [-0.1, 1.0, math.nan])
def test_dropout_refuses_impossible_rates(rate):
    with pytest.raises(ValueError, match=r"the dropout rate must be in \[0, 1\)"):
        Dropout(rate)


def test_dropout_layers_of_a_module_draw_different_masks():
    net = Sequential(Dropout(0.5), Sequential(Dropout(0.5)))
    x = Tensor(np.ones(50))
    first, again, other = (dropped(net, x, seed).data for seed in (1, 1, 2))
    np.testing.assert_array_equal(again, first)
    assert not np.array_equal(other, first)
    assert set(first) == {0, 4}
    assert 4 < (first == 4).sum() < 22  # each of both has masks of its own: a quarter is left


# ---- maxout ----


@pytest.mark.usefixtures("kernel_set")
@both_dtypes
def test_maxout_is_the_largest_of_its_linear_pieces(rng, dtype):
    layer = Maxout(4, 3, 5, rng, dtype=dtype)
    layer.linear.bias.write(rng.standard_normal(15))
    x = rng.standard_normal((2, 6, 4))
    weight, bias = (p.data.astype(float) for p in layer.parameters())
    expected = [
        max(x[place] @ weight[:, unit * 5 + piece] + bias[unit * 5 + piece] for piece in range(5))
        for place in np.ndindex(2, 6)
        for unit in range(3)
    ]
    np.testing.assert_allclose(layer(Tensor(x, dtype=dtype)).data.ravel(), expected, rtol=1e-5, atol=1e-5)


# ---- batch normalisation ----


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize("shape", [(40, 3), (5, 2, 4, 3)], ids=["vectors", "images"])
def test_batch_norm_outputs_have_mean_beta_and_deviation_gamma(rng, shape):
    layer = BatchNorm(3, epsilon=0.0, dtype=np.float64)
    layer.gamma.write(np.array([1.0, 2.0, 0.5]))
    layer.beta.write(np.array([0.0, -1.0, 3.0]))
    out = layer(Tensor(5 + 3 * rng.standard_normal(shape))).data.reshape(40, 3)
    np.testing.assert_allclose(out.mean(axis=0), layer.beta.data, atol=1e-12)
    np.testing.assert_allclose(out.std(axis=0), layer.gamma.data, rtol=1e-12)


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize("shape", [(7, 3), (2, 3, 2, 3)], ids=["vectors", "images"])
def test_batch_norm_evaluates_by_its_running_averages(rng, shape):
    layer = BatchNorm(3, "relu", momentum=0.6, dtype=np.float64)
    batches = [rng.standard_normal(shape) for _ in range(3)]
    mean, variance = np.zeros(3), np.ones(3)
    for x in batches:
        layer(Tensor(x))
        rows = x.reshape(-1, 3)
        mean, variance = 0.6 * mean + 0.4 * rows.mean(axis=0), 0.6 * variance + 0.4 * rows.var(axis=0)
    np.testing.assert_allclose(layer.mean.data, mean, rtol=1e-12)
    np.testing.assert_allclose(layer.variance.data, variance, rtol=1e-12)
    layer.eval()
    before = layer.state_dict()
    expected = np.maximum((batches[0] - mean) / np.sqrt(variance + 1e-5), 0)
    np.testing.assert_allclose(layer(Tensor(batches[0])).data, expected, rtol=1e-12)
    np.testing.assert_allclose(layer(Tensor(batches[0][:1])).data, expected[:1], rtol=1e-12)
    assert all(np.array_equal(array, before[name]) for name, array in layer.state_dict().items())


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize(("rows", "says"), [(1, "has one example"), (0, "has no examples")])
def test_batch_norm_of_less_than_two_rows_is_an_error_in_training_only(rows, says):
    layer, x = BatchNorm(3), Tensor(np.ones((rows, 3), np.float32))
    before = layer.state_dict()
    with pytest.raises(ValueError, match=rf"^batch_norm: a batch of shape \({rows}, 3\) {says}"):
        layer(x)
    assert all(np.array_equal(array, before[name]) for name, array in layer.state_dict().items())
    layer.eval()
    assert layer(x).shape == (rows, 3)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.usefixtures("kernel_set")
def test_batch_norm_gradients(rng, training):
    layer = BatchNorm(3, "tanh", momentum=1.0, dtype=np.float64)  # averages that stay as they are
    for tensor, low in ((layer.gamma, -2), (layer.beta, -2), (layer.mean, -2), (layer.variance, 0.5)):
        tensor._data[...] = rng.uniform(low, 2, 3)
    layer.train() if training else layer.eval()
    x = Tensor(rng.standard_normal((7, 3)), requires_grad=True)
    gradcheck(lambda *_: layer(x), x, *layer.parameters())


def test_batch_norm_saves_running_averages_that_are_no_parameters(rng):
    layer, other = BatchNorm(3), BatchNorm(3)
    layer(Tensor(rng.standard_normal((7, 3)), dtype=np.float32))
    assert list(layer.named_parameters()) == ["gamma", "beta"]
    assert list(layer.state_dict()) == ["gamma", "beta", "mean", "variance"]
    other.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(other.mean.data, layer.mean.data)
    assert layer.mean.data.any()


def test_dense_without_bias_is_a_product(rng):
    layer, x = Dense(4, 3, rng, "tanh", bias=False), rng.standard_normal((5, 4)).astype(np.float32)
    assert list(layer.named_parameters()) == ["weight"]
    np.testing.assert_allclose(layer(Tensor(x)).data, np.tanh(x @ layer.weight.data), rtol=1e-6)


# ---- images ----


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ["identity", "tanh", "leaky_relu"])
@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
def test_convolutional_layers_give_what_their_operations_do(rng, kind, activation, bias):
    layer = kind(2, 3, (3, 2), rng, activation, (2, 1), (1, 0), dtype=np.float64, bias=bias)
    assert list(layer.named_parameters()) == ["weight", "bias"][: 1 + bias]
    x = Tensor(rng.standard_normal((2, 5, 4, 2)))
    compute = ops.conv2d if kind is Conv2d else ops.conv_transpose2d
    expected = compute(x, layer.weight, stride=(2, 1), padding=(1, 0))
    if bias:
        layer.bias.write(rng.standard_normal(3))
        expected = expected + layer.bias
    if activation != "identity":
        expected = ACTIVATIONS[activation](expected)
    np.testing.assert_allclose(layer(x).data, expected.data, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_keep_the_variance_of_signals(rng, stride):
    """He's initialisation before relu, by the numbers that an output pixel adds up: a pixel far from the edge."""
    x = Tensor(rng.standard_normal((40, 12, 12, 16)))
    for layer in (
        Conv2d(16, 64, 4, rng, "relu", stride, dtype=np.float64),
        ConvTranspose2d(16, 64, 4, rng, "relu", stride, dtype=np.float64),
    ):
        out = layer(x).data[:, 4:-4, 4:-4] if isinstance(layer, ConvTranspose2d) else layer(x).data
        assert np.mean(out**2) == pytest.approx(1, rel=0.1)  # half of 2, which the weights make of 1


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (AvgPool2d(2), (2, 3, 2, 5)),
        (MaxPool2d((2, 3), 1), (2, 5, 2, 5)),
        (Upsample2d((2, 3)), (2, 12, 12, 5)),
        (Reshape(-1), (2, 120)),
        (Reshape(4, 6, 5), (2, 4, 6, 5)),
    ],
)
def test_layers_of_images_give_the_shapes_that_they_say(rng, layer, shape):
    assert layer(Tensor(rng.standard_normal((2, 6, 4, 5)))).shape == shape
    assert layer.parameters() == []


# ---- how weights begin ----

FAN_IN, FAN_OUT = 300, 200


INITIALIZERS = [  # and the kurtosis and variance of what they draw
    (init.glorot_uniform, 1.8, 2 / (FAN_IN + FAN_OUT)),
    (init.glorot_normal, 3.0, 2 / (FAN_IN + FAN_OUT)),
    (init.he_uniform, 1.8, 2 / FAN_IN),
    (init.he_normal, 3.0, 2 / FAN_IN),
    (init.normal, 3.0, 0.02**2),
    (init.fan_in_uniform, 1.8, 1 / (3 * FAN_IN)),
    (init.uniform, 1.8, 0.05**2 / 3),
    (init.INITIALIZERS["small_uniform"], 1.8, 0.005**2 / 3),
]


def test_every_initializer_is_in_the_list():
    defined = {f for f in vars(init).values() if getattr(f, "__module__", "") == init.__name__}
    assert {initializer for initializer, _, _ in INITIALIZERS} == defined | set(init.INITIALIZERS.values())


@pytest.mark.parametrize(("initializer", "kurtosis", "variance"), INITIALIZERS)
def test_initializers_have_the_moments_of_their_formulas(rng, initializer, kurtosis, variance):
    weights = initializer(rng, FAN_IN, FAN_OUT)
    assert weights.shape == (FAN_IN, FAN_OUT)
    assert weights.dtype == np.float64
    n = weights.size
    assert abs(weights.mean()) < 4 * math.sqrt(variance / n)
    assert weights.var() == pytest.approx(variance, rel=4 * math.sqrt((kurtosis - 1) / n))
    assert (weights**4).mean() / variance**2 == pytest.approx(kurtosis, rel=0.05)
    if kurtosis == 1.8:  # uniform: variance = limit^2 / 3, and draws come near the limit
        limit = math.sqrt(3 * variance)
        assert 0.999 * limit < np.abs(weights).max() <= limit


def test_initializers_take_their_spread(rng):
    assert init.normal(rng, 100, 100, std=2.0).std() == pytest.approx(2, rel=0.03)
    assert 2.9 < np.abs(init.uniform(rng, 100, 100, limit=3.0)).max() <= 3


@pytest.mark.parametrize("initializer", [init.glorot_uniform, init.glorot_normal, init.he_uniform, init.he_normal])
def test_initializers_give_empty_weights_for_no_units(rng, initializer):
    assert initializer(rng, 0, 0).shape == (0, 0)


# ---- the flat buffer ----

SLICES = pytest.mark.parametrize("part", [slice(0, 2), slice(1, 3), slice(2, 4)], ids=["prefix", "middle", "suffix"])


def autoencoder(rng):
    return mlp((5, 4, 2, 4, 5), "tanh", rng, np.float64)


def backward(model, rng, factor=1.0):
    x = Tensor(rng.standard_normal((6, 5)))
    (factor * ops.square(model(x) - x).sum()).backward()


def test_flatten_makes_parameters_views_of_one_buffer(rng):
    model = autoencoder(rng)
    before = model.state_dict()
    flat = flatten(model.parameters())
    np.testing.assert_array_equal(flat.data, np.concatenate([array.ravel() for array in before.values()]))
    assert flat.grad.shape == flat.data.shape
    assert flat.grad.dtype == flat.data.dtype == np.float64
    backward(model, rng)
    np.testing.assert_array_equal(flat.grad, np.concatenate([p.grad.ravel() for p in model.parameters()]))
    flat.data[...], flat.grad[...] = np.arange(flat.data.size), -np.arange(flat.data.size)
    start = 0
    for p in model.parameters():
        np.testing.assert_array_equal(p.data.ravel(), np.arange(start, start + p.size))
        np.testing.assert_array_equal(p.grad, -p.data)
        start += p.size


def test_flatten_keeps_earlier_gradients(rng):
    model = autoencoder(rng)
    backward(model, rng)
    before = [p.grad for p in model.parameters()]
    flat = flatten(model.parameters())
    assert np.array_equal(flat.grad, np.concatenate([gradient.ravel() for gradient in before]))
    assert all(np.array_equal(p.grad, gradient) for p, gradient in zip(model.parameters(), before, strict=True))
    flat.clear_gradients()
    assert all(p.grad is None for p in model.parameters())


@SLICES
def test_flatten_of_a_part_gives_a_slice_of_the_buffer(rng, part):
    model = autoencoder(rng)
    inner = Sequential(*model.layers[part])
    whole, slot = flatten(model.parameters()), flatten(inner.parameters())
    assert [id(p) for p in slot.parameters] == [id(p) for p in inner.parameters()]
    assert slot.data.size == slot.grad.size == sum(p.size for p in inner.parameters())
    assert np.shares_memory(whole.data, slot.data)
    assert np.shares_memory(whole.grad, slot.grad)
    backward(model, rng)
    np.testing.assert_array_equal(slot.data, np.concatenate([p.data.ravel() for p in inner.parameters()]))
    np.testing.assert_array_equal(slot.grad, np.concatenate([p.grad.ravel() for p in inner.parameters()]))
    again = flatten(model.parameters())
    assert again.data.ctypes.data == whole.data.ctypes.data
    assert again.data.size == whole.data.size


@SLICES
def test_step_of_an_optimizer_changes_only_its_own_parameters(rng, part):
    model = autoencoder(rng)
    inner = Sequential(*model.layers[part])
    outer, own = SGD(model, 0.1), SGD(inner, 0.1)
    mine = {id(p) for p in inner.parameters()}
    backward(model, rng)
    gradients, before = outer.flat.grad.copy(), model.state_dict()
    own.step()
    np.testing.assert_array_equal(outer.flat.grad, gradients)
    for p, old in zip(model.parameters(), before.values(), strict=True):
        assert (p.data.tobytes() != old.tobytes()) == (id(p) in mine)
        assert p.version == (id(p) in mine)
    own.zero_grad()
    assert {id(p) for p in model.parameters() if p.grad is None} == mine
    before = model.state_dict()
    outer.step()
    for p, old in zip(model.parameters(), before.values(), strict=True):
        assert (p.data.tobytes() == old.tobytes()) == (id(p) in mine)  # a gradient of zero moves nothing


def test_backward_writes_the_first_gradient_and_adds_the_second(rng):
    model = autoencoder(rng)
    flat = flatten(model.parameters())
    flat.grad[...] = np.nan  # whatever lies there must not matter
    backward(model, np.random.default_rng(1))
    first = flat.grad.copy()
    assert np.isfinite(first).all()
    backward(model, np.random.default_rng(1), factor=3.0)
    np.testing.assert_allclose(flat.grad, 4 * first, rtol=1e-12)
    flat.clear_gradients()
    assert all(p.grad is None for p in model.parameters())
    backward(model, np.random.default_rng(1))
    np.testing.assert_array_equal(flat.grad, first)


def test_backward_adds_gradients_outside_a_buffer_too(rng):
    loose = Parameter([1.0, 2.0])
    (loose * 3.0).sum().backward()
    (loose * 4.0).sum().backward()
    np.testing.assert_array_equal(loose.grad, [7, 7])


def test_complete_gradient_takes_missing_gradients_for_zero(rng):
    model = autoencoder(rng)
    flat = flatten(model.parameters())
    flat.grad[...] = np.nan
    reached = model.layers[0].parameters()
    ops.square(model.layers[0](Tensor(rng.standard_normal((6, 5))))).sum().backward()
    expected = np.concatenate([p.grad.ravel() for p in reached])
    complete = flat.complete_gradient()
    np.testing.assert_array_equal(complete[: expected.size], expected)
    np.testing.assert_array_equal(complete[expected.size :], 0)


def loose(*sizes):
    return [Parameter(np.zeros(size), np.float64) for size in sizes]


def flat_model(rng):
    model = autoencoder(rng)
    flatten(model.parameters())
    return model.parameters()


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (lambda rng: [], "there are no parameters"),
        (lambda rng: 2 * loose(3), "a parameter is given twice"),
        (lambda rng: [*loose(3), Parameter([1.0])], "must have one float type"),
        (lambda rng: [*flat_model(rng), *loose(3)], "lie in another buffer"),
        (lambda rng: [*loose(3), *flat_model(rng)], "lie in another buffer"),
        (lambda rng: [*flat_model(rng), *flat_model(rng)], "lie in another buffer"),
        (lambda rng: flat_model(rng)[::2], "lie in another buffer"),
        (lambda rng: flat_model(rng)[::-1], "lie in another buffer"),
    ],
    ids=["none", "twice", "types", "more behind", "more before", "two buffers", "gaps", "order"],
)
def test_flatten_refuses_parameters_that_cannot_share_a_buffer(rng, choose, message):
    parameters = choose(rng)
    before = [(p.data.ctypes.data, p.flat) for p in parameters]
    with pytest.raises(ValueError, match=message):
        flatten(parameters)
    assert [(p.data.ctypes.data, p.flat) for p in parameters] == before


# ---- graphs know when their parameters change ----


@pytest.mark.parametrize("how", ["step", "load_state_dict"])
def test_backward_after_parameters_changed_is_an_error(rng, how):
    model = autoencoder(rng)
    optimizer = SGD(model, 0.1)
    x = Tensor(rng.standard_normal((6, 5)))
    stale = model(x).sum()
    optimizer.step() if how == "step" else model.load_state_dict(model.state_dict())
    with pytest.raises(RuntimeError, match=r"dense: an input of shape \(4, 5\) has been written to since the forward"):
        stale.backward()
    model(x).sum().backward()


def test_step_leaves_graphs_of_other_parameters_usable(rng):
    model = autoencoder(rng)
    flatten(model.parameters())
    encoder, decoder = Sequential(*model.layers[:2]), Sequential(*model.layers[2:])
    codes = encoder(Tensor(rng.standard_normal((6, 5)))).sum()
    SGD(decoder, 0.1).step()
    codes.backward()
    assert encoder.parameters()[0].grad.any()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_module_copied_after_flatten_trains_independently(rng, duplicate):
    model = Dense(3, 2, rng)
    Adam(model, lr=0.1)
    twin = duplicate(model)
    before = model.state_dict()
    optimizer = Adam(twin, lr=0.1)
    twin(Tensor(np.ones((1, 3), np.float32))).sum().backward()
    optimizer.step()
    assert not np.array_equal(twin.weight.data, before["weight"])
    assert np.array_equal(model.weight.data, before["weight"])


def test_module_copied_with_its_optimizer_is_trained_by_it(rng):
    model = Dense(3, 2, rng)
    twin, optimizer = copy.deepcopy((model, Adam(model, lr=0.1)))
    twin(Tensor(np.ones((1, 3), np.float32))).sum().backward()
    optimizer.step()
    assert not np.array_equal(twin.weight.data, model.weight.data)


def test_backward_adds_both_gradients_of_a_repeated_input(rng):
    for operation in ("matmul", "multiply", "subtract", "add"):
        gradients = []
        for in_a_buffer in (False, True):
            w = Parameter(np.arange(9.0).reshape(3, 3), np.float64)
            if in_a_buffer:
                flatten([w])
            y = apply(operation, w, w)
            (y * Tensor(np.arange(9.0).reshape(3, 3), dtype=np.float64)).sum().backward()
            gradients.append(np.array(w.grad))
        np.testing.assert_array_equal(*gradients)


def test_backward_adds_both_gradients_of_a_layer_used_twice(rng):
    gradients = []
    for in_a_buffer in (False, True):
        layer = Dense(3, 3, np.random.default_rng(0), "tanh", dtype=np.float64)
        if in_a_buffer:
            flatten(layer.parameters())
        layer(layer(Tensor(np.ones((2, 3))))).sum().backward()
        gradients.append(np.array(layer.weight.grad))
    np.testing.assert_allclose(*gradients, rtol=1e-14)
