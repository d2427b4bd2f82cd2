"""distributions.portable and .noise: sampling by noise, in operations that TFLite has too."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from pgest import distributions
from pgest.distributions import noise, portable
from tests.distributions.distribution_families import SEED, close, every_family, normal

tfd = tfp.distributions
each_family = pytest.mark.parametrize("family", list(every_family()))


@pytest.fixture(scope="module")
def uniform():
    return noise.uniform([50_000, noise.BETA_NOISE], SEED)


class TestNoise:
    def test_uniform_is_the_same_under_xla(self):
        def draw(seed):
            return noise.uniform([33, 7], seed), noise.split_seed(seed, 5)

        close(tf.function(draw, jit_compile=True)(tf.constant(SEED)), draw(SEED), 0)

    def test_uniform_moments(self, uniform):
        assert 0 <= uniform.numpy().min() <= uniform.numpy().max() < 1
        assert np.mean(uniform) == pytest.approx(1 / 2, abs=1e-3)
        assert np.var(uniform) == pytest.approx(1 / 12, abs=1e-3)

    def test_normal_moments(self, uniform):
        draws = noise.normal(uniform[:, :2]).numpy()
        assert draws.mean() == pytest.approx(0, abs=0.02)
        assert draws.var() == pytest.approx(1, abs=0.03)
        assert np.mean(draws**4) == pytest.approx(3, abs=0.15)

    @pytest.mark.parametrize("concentration", [0.3, 1.0, 2.5, 40.0])
    def test_gamma_moments(self, uniform, concentration):
        # Mean and variance are the concentration, the third central moment is twice that.
        draws = noise.gamma(
            tf.fill([50_000], concentration), uniform[:, : noise.GAMMA_NOISE]
        ).numpy()
        deviation = math.sqrt(concentration)
        assert draws.mean() == pytest.approx(concentration, abs=0.02 * deviation)
        assert draws.var() == pytest.approx(concentration, rel=0.05)
        third = np.mean((draws - concentration) ** 3)
        assert third == pytest.approx(2 * concentration, rel=0.15, abs=0.1 * deviation**3)

    def test_beta_moments(self, uniform):
        # Beta(2, 3): mean 2/5, variance 2 * 3 / (25 * 6) = 0.04.
        draws = noise.beta(tf.fill([50_000], 2.0), tf.fill([50_000], 3.0), uniform).numpy()
        assert draws.mean() == pytest.approx(0.4, abs=0.004)
        assert draws.var() == pytest.approx(0.04, rel=0.03)

    @pytest.mark.parametrize("extreme", [0.0, 1.0])
    def test_extreme_noise_is_harmless(self, extreme):
        for distribution in every_family().values():
            uniform = tf.fill(distributions.noise_shape(distribution).as_list(), extreme)
            action = distributions.sample_with_noise(distribution, uniform)
            for part in tf.nest.flatten(action):
                assert np.isfinite(part.numpy().astype(np.float32)).all()


class TestPortable:
    @each_family
    def test_samples_follow_the_distribution(self, family):
        """The mean log-probability of samples is minus the entropy."""
        distribution = every_family()[family]
        uniform = noise.uniform([20_000, *distributions.noise_shape(distribution)], SEED)
        log_prob = distribution.log_prob(distributions.sample_with_noise(distribution, uniform))
        spread = np.std(log_prob, axis=0) / math.sqrt(len(log_prob))
        difference = np.mean(-log_prob, axis=0) - distribution.entropy()
        assert (np.abs(difference) < 5 * spread + 2e-3).all()

    @each_family
    def test_mode_is_the_distributions(self, family):
        distribution = every_family()[family]
        close(distributions.mode(distribution), distribution.mode())

    @each_family
    def test_a_sample_is_the_noise_of_its_seed(self, family):
        distribution = every_family()[family]
        uniform = noise.uniform(distributions.noise_shape(distribution), SEED)
        close(
            distributions.sample(distribution, SEED),
            distributions.sample_with_noise(distribution, uniform),
            0,
        )

    def test_parameters(self):
        families = every_family()
        names = {name: sorted(distributions.parameters(d)) for name, d in families.items()}
        assert names == {
            "categorical": ["logits"],
            "multi_categorical": ["logits"],
            "bernoulli": ["logits"],
            "gaussian": ["loc", "scale"],
            "squashed_gaussian": ["high", "loc", "low", "scale"],
            "beta": ["concentration0", "concentration1", "high", "low"],
            "joint": [
                "arm/high",
                "arm/loc",
                "arm/low",
                "arm/scale",
                "legs/0/logits",
                "legs/1/deep/logits",
            ],
        }
        for distribution in families.values():
            for tensor in distributions.parameters(distribution).values():
                assert tensor.shape[0] == 3

    def test_of_tfp_distributions_that_users_make(self):
        loc = normal([3, 2])
        diagonal = tfd.MultivariateNormalDiag(loc, tf.ones([3, 2]))
        squashed = tfd.TransformedDistribution(
            tfd.Independent(tfd.Normal(loc, 1.0), 1), tfp.bijectors.Tanh()
        )
        by_probability = tfd.Categorical(probs=[[0.2, 0.8]])
        fixed = tfd.Deterministic(loc)
        for distribution in (diagonal, squashed, by_probability, fixed):
            action = distributions.sample(distribution, SEED)
            assert np.isfinite(distribution.log_prob(action)).all()
        close(distributions.mode(squashed), np.tanh(loc))
        close(distributions.mode(diagonal), loc)

    def test_an_unknown_family_names_the_known(self):
        with pytest.raises(
            TypeError, match="Poisson has no form.*known are.*Categorical.*register"
        ):
            distributions.noise_size(tfd.Poisson([1.0]))

    def test_an_unknown_family_still_samples(self):
        assert distributions.sample(tfd.Poisson([1.0]), SEED).shape == [1]

    def test_a_family_of_ones_own(self):
        class Uniform(tfd.Uniform):
            pass

        distributions.register(
            Uniform,
            distributions.PortableForm(
                parameters=lambda d: {"low": d.low, "high": d.high},
                noise_per_element=lambda d: 1,
                sample=lambda d, u: d.low + (d.high - d.low) * u[..., 0],
                mode=lambda d: d.mean(),
            ),
        )
        action = distributions.sample_with_noise(Uniform([2.0], [4.0]), tf.constant([[0.25]]))
        assert action.numpy().tolist() == [2.5]

    @pytest.mark.slow
    @each_family
    def test_converts_to_tflite_without_other_operations(self, family):
        """And the converted graph gives what TensorFlow gives."""
        noise_size = distributions.noise_size(every_family()[family])

        @tf.function(input_signature=[tf.TensorSpec([3, noise_size])])
        def sample(uniform):
            distribution = every_family()[family]
            action = distributions.sample_with_noise(distribution, uniform)
            return tf.nest.flatten((action, distributions.mode(distribution)))

        # Without SELECT_TF_OPS an operation that TFLite lacks fails the conversion.
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [sample.get_concrete_function()], sample
        )
        interpreter = tf.lite.Interpreter(model_content=converter.convert())
        interpreter.allocate_tensors()
        uniform = noise.uniform([3, noise_size], SEED)
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], uniform)
        interpreter.invoke()
        outputs = interpreter.get_output_details()
        converted = [interpreter.get_tensor(output["index"]) for output in outputs]
        close(converted, sample(uniform), 1e-4)


@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("family", ["gaussian", "squashed_gaussian", "beta", "deterministic"])
def test_no_operation_that_tells_a_common_shape(family, batch):
    """ONNX has no BroadcastArgs, and TFLite none for float64."""
    low, high = tf.constant([-2.0, 0.5]), tf.constant([1.0, 4.0])
    make = {
        "gaussian": lambda x: tfd.Independent(tfd.Normal(x, tf.constant([0.5, 2.0])), 1),
        "squashed_gaussian": lambda x: distributions.squashed_gaussian(x, x, low, high),
        "beta": lambda x: distributions.beta(x, x, low, high),
        "deterministic": lambda x: tfd.Deterministic(loc=x),
    }[family]

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([batch, 2], tf.float32)])
    def describe(x):
        distribution = make(x)
        return portable.parameters(distribution), portable.mode(distribution)

    graph = describe.get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    assert "BroadcastArgs" not in {node.op for node in nodes}
    rows = tf.constant([[0.1, 0.2], [0.3, -0.4], [1.0, 2.0]])
    parameters, mode = describe(rows)
    assert {tuple(leaf.shape) for leaf in [*parameters.values(), mode]} == {(3, 2)}
    close(mode, portable.mode(make(rows)))


def test_a_parameter_takes_the_shape_of_the_others():
    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, 2]), tf.TensorSpec([2])])
    def describe(scale, loc):
        return portable.parameters(tfd.Normal(loc, scale)), portable.mode(tfd.Normal(loc, scale))

    parameters, mode = describe(tf.ones([3, 2]), tf.constant([1.0, 2.0]))
    for leaf in (parameters["loc"], mode):
        np.testing.assert_array_equal(leaf, [[1.0, 2.0]] * 3)
