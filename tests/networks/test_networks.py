"""networks: shapes, names, initial weights, observations of every space."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from pgest import networks
from tests.distributions.distribution_families import close


def variables_of(function):
    """Variables by name that a function makes when traced, as a model_fn is."""
    with tf.Graph().as_default() as graph:
        function()
        return {variable.name: variable for variable in graph.get_collection("variables")}


class TestMlp:
    def test_shapes_and_names(self):
        variables = variables_of(lambda: networks.mlp(tf.zeros([2, 3]), (8, 4), name="actor"))
        assert {name: variable.shape.as_list() for name, variable in variables.items()} == {
            "actor_0/kernel:0": [3, 8],
            "actor_0/bias:0": [8],
            "actor_1/kernel:0": [8, 4],
            "actor_1/bias:0": [4],
        }

    def test_layers_are_orthogonal_with_gain_root_2(self):
        # Of the identity, a dense layer without activation gives the kernel back.
        kernel = networks.mlp(tf.eye(16), (16,), activation=None).numpy()
        close(kernel.T @ kernel, 2 * np.eye(16), 1e-5)

    def test_gain(self):
        kernel = networks.dense(tf.eye(16), 16, gain=0.01).numpy()
        close(kernel.T @ kernel, 1e-4 * np.eye(16), 1e-6)

    def test_leading_axes_are_kept(self):
        assert networks.mlp(tf.zeros([5, 2, 3]), (8,)).shape == [5, 2, 8]

    def test_no_layers(self):
        inputs = tf.ones([2, 3])
        assert networks.mlp(inputs, ()) is inputs


class TestCnn:
    def test_shapes_and_names(self):
        # (84 - 8) / 4 + 1 = 20, (20 - 4) / 2 + 1 = 9, 9 - 3 + 1 = 7; 7 * 7 * 64 = 3136
        variables = variables_of(lambda: networks.cnn(tf.zeros([2, 84, 84, 4]), name="eye"))
        shapes = {name: variable.shape.as_list() for name, variable in variables.items()}
        assert {name: shape for name, shape in shapes.items() if "kernel" in name} == {
            "eye_0/kernel:0": [8, 8, 4, 32],
            "eye_1/kernel:0": [4, 4, 32, 64],
            "eye_2/kernel:0": [3, 3, 64, 64],
            "eye_dense/kernel:0": [3136, 512],
        }

    def test_leading_axes_are_kept(self):
        assert networks.cnn(tf.zeros([2, 3, 36, 36, 1]), 16).shape == [2, 3, 16]

    @pytest.mark.parametrize("shape", [[2, 35, 84, 3], [84, 84, 3]])
    def test_images_that_are_none(self, shape):
        with pytest.raises(ValueError, match="36x36 at least, got.*flatten_observation"):
            networks.cnn(tf.zeros(shape))


class TestPreprocessImage:
    @pytest.mark.parametrize(
        ("shape", "expected"),
        [
            ((40, 50, 3), (40, 50, 3)),
            ((4, 40, 50), (40, 50, 4)),
            ((40, 50), (40, 50, 1)),
            ((4, 40, 50, 3), (40, 50, 12)),
        ],
    )
    @pytest.mark.parametrize("leading", [[2], [5, 2]])
    def test_channels_last(self, shape, expected, leading):
        space = spaces.Box(0, 255, shape, np.uint8)
        image = np.stack([space.sample() for _ in range(int(np.prod(leading)))])
        result = networks.preprocess_image(space, image.reshape(*leading, *shape))
        assert result.shape == [*leading, *expected]
        assert result.dtype == tf.float32
        assert 0 <= result.numpy().min() <= result.numpy().max() <= 1

    def test_pixels_stay_in_place(self):
        space = spaces.Box(0, 255, (2, 40, 50, 3), np.uint8)
        image = space.sample()
        result = networks.preprocess_image(space, image[None]).numpy()[0]
        close(result[7, 9], np.concatenate([image[0, 7, 9], image[1, 7, 9]]) / 255)
        stacked = networks.preprocess_image(
            spaces.Box(0, 255, (3, 40, 50), np.uint8), image[None, 0]
        )
        del stacked

    @pytest.mark.parametrize(
        "space",
        [
            spaces.Box(0, 255, (40, 50, 3), np.float32),
            spaces.Box(0, 1, (40, 50, 3), np.uint8),
            spaces.Box(0, 255, (40,), np.uint8),
            spaces.Discrete(3),
        ],
    )
    def test_what_is_no_image(self, space):
        assert not networks.is_image(space)


NESTED = spaces.Dict(
    {
        "key": spaces.Discrete(3, start=-1),
        "many": spaces.Tuple(
            (spaces.MultiDiscrete([2, 3], start=[1, 0]), spaces.MultiBinary([2, 2]))
        ),
        "at": spaces.Box(-1, 1, (2, 2)),
    }
)


class TestFlattenObservation:
    @pytest.mark.parametrize(
        "space",
        [
            spaces.Discrete(3, start=5),
            spaces.MultiDiscrete([2, 3]),
            spaces.MultiDiscrete(np.array([[2, 3], [4, 2]])),
            spaces.MultiBinary([2, 2]),
            spaces.Box(-1, 1, (2, 2)),
            spaces.Box(-1, 1, ()),
            NESTED,
        ],
        ids=str,
    )
    def test_is_gymnasiums_flatten(self, space):
        """Up to scale and order the same encoding as gymnasium's own."""
        space.seed(0)
        samples = [space.sample() for _ in range(6)]
        batch = tf.nest.map_structure(lambda *parts: np.stack(parts), *samples)
        ours = networks.flatten_observation(space, batch)
        theirs = np.stack([spaces.flatten(space, sample) for sample in samples])
        close(ours, theirs.astype(np.float32))
        time_first = tf.nest.map_structure(lambda part: part.reshape(2, 3, *part.shape[1:]), batch)
        close(networks.flatten_observation(space, time_first), tf.reshape(ours, [2, 3, -1]))

    def test_images_are_scaled(self):
        space = spaces.Box(0, 255, (2, 2), np.uint8)
        result = networks.flatten_observation(space, np.full([1, 2, 2], 255, np.uint8))
        assert result.numpy().tolist() == [[1, 1, 1, 1]]

    def test_the_last_axis_is_static_where_the_batch_is_not(self):
        signature = tf.nest.map_structure(
            lambda sample: tf.TensorSpec([None, *np.shape(sample)], np.asarray(sample).dtype),
            NESTED.sample(),
        )
        traced = tf.function(lambda observation: networks.flatten_observation(NESTED, observation))
        assert traced.get_concrete_function(signature).output_shapes == [None, 3 + 5 + 4 + 4]

    def test_a_space_of_no_fixed_size(self):
        with pytest.raises(TypeError, match="Text.*no fixed size.*TransformObservation"):
            networks.flatten_observation(spaces.Text(3), tf.zeros([1]))


class TestEncodeObservation:
    def test_images_of_a_nest_get_a_cnn_each(self):
        space = spaces.Dict(
            left=spaces.Box(0, 255, (40, 40, 3), np.uint8),
            right=spaces.Box(0, 255, (40, 40, 3), np.uint8),
            speed=spaces.Box(-1, 1, (2,)),
        )
        observation = tf.nest.map_structure(lambda part: part[None], space.sample())
        encoded = networks.encode_observation(space, observation, image_features=8)
        assert encoded.shape == [1, 8 + 8 + 2]
        close(encoded[0, 16:], observation["speed"][0])

    def test_a_real_environment(self):
        env = gymnasium.make("Blackjack-v1")
        observation, _ = env.reset(seed=0)
        batch = tf.nest.map_structure(lambda part: np.asarray(part)[None], observation)
        encoded = networks.encode_observation(env.observation_space, batch)
        assert encoded.shape == [1, 32 + 11 + 2]
        assert float(tf.reduce_sum(encoded)) == 3

    def test_a_small_image_is_flattened(self):
        space = spaces.Box(0, 255, (7, 7, 3), np.uint8)
        assert networks.encode_observation(space, space.sample()[None]).shape == [1, 147]
