"""networks: shapes, names, initial weights, observations of every space, recurrence."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
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


CELLS = {
    "lstm": lambda: tf_keras.layers.LSTMCell(4, name="memory"),
    "gru": lambda: tf_keras.layers.GRUCell(4, name="memory"),
    "simple": lambda: tf_keras.layers.SimpleRNNCell(4, name="memory"),
    "lstm of another kind": lambda: tf_keras.layers.LSTMCell(
        4, activation="relu", use_bias=False, name="memory"
    ),
    "gru of another kind": lambda: tf_keras.layers.GRUCell(4, reset_after=False, name="memory"),
}
each_cell = pytest.mark.parametrize("kind", list(CELLS))
LENGTH, BATCH = 7, 3


def sequence(seed=0):
    generator = np.random.default_rng(seed)
    inputs = generator.normal(size=(LENGTH, BATCH, 5)).astype(np.float32)
    return tf.constant(inputs), tf.constant(generator.random((LENGTH, BATCH)) < 0.3)


def act(cell, inputs, resets=None, state=None):
    """Step by step, as acting does it."""
    outputs = []
    for time in range(len(inputs)):
        features = {} if state is None else {"policy_state": state}
        if resets is not None:
            features["reset"] = resets[time]
        output, state = networks.unroll(cell, inputs[time], features)
        outputs.append(output)
    return tf.stack(outputs), state


class TestUnroll:
    @each_cell
    def test_training_is_acting_step_by_step(self, kind):
        tf_keras.utils.set_random_seed(0)
        cell = CELLS[kind]()
        inputs, resets = sequence()
        outputs, state = networks.unroll(cell, inputs, {"reset": resets})
        acted_outputs, acted_state = act(cell, inputs, resets)
        close(outputs, acted_outputs, 1e-6)
        close(state, acted_state, 1e-6)
        assert outputs.shape == [LENGTH, BATCH, 4]

    @each_cell
    def test_a_reset_starts_afresh(self, kind):
        tf_keras.utils.set_random_seed(0)
        cell = CELLS[kind]()
        inputs, _ = sequence()
        resets = np.zeros([LENGTH, BATCH], bool)
        resets[3, 1] = True
        outputs, _ = networks.unroll(cell, inputs, {"reset": resets})
        fresh, _ = networks.unroll(cell, inputs[3:], {})
        whole, _ = networks.unroll(cell, inputs, {})
        close(outputs[3:, 1], fresh[:, 1], 1e-6)
        close(outputs[:, 0], whole[:, 0], 1e-6)
        assert np.abs(outputs[3:, 1] - whole[3:, 1]).max() > 1e-3

    @each_cell
    def test_it_goes_on_from_a_policy_state(self, kind):
        tf_keras.utils.set_random_seed(0)
        cell = CELLS[kind]()
        inputs, resets = sequence()
        whole, end = networks.unroll(cell, inputs, {"reset": resets})
        _, middle = networks.unroll(cell, inputs[:4], {"reset": resets[:4]})
        rest, rest_end = networks.unroll(
            cell, inputs[4:], {"reset": resets[4:], "policy_state": middle}
        )
        close(rest, whole[4:], 1e-6)
        close(rest_end, end, 1e-6)

    @each_cell
    def test_gradients_are_those_of_acting_step_by_step(self, kind):
        tf_keras.utils.set_random_seed(0)
        cell = CELLS[kind]()
        inputs, resets = sequence()
        networks.unroll(cell, inputs, {})
        start = tf.nest.map_structure(
            lambda size: tf.constant(
                np.random.default_rng(size).normal(size=(BATCH, size)), tf.float32
            ),
            tuple(tf.nest.flatten(cell.state_size)),
        )

        def gradients(run):
            with tf.GradientTape() as tape:
                tape.watch([inputs, *start])
                outputs, state = run()
                weights = tf.range(1.0, LENGTH + 1)[:, None, None]
                loss = tf.reduce_sum(weights * outputs**2)
                loss += sum(tf.reduce_sum(part**3) for part in tf.nest.flatten(state))
            return tape.gradient(loss, [*cell.trainable_variables, inputs, *start])

        features = {"reset": resets, "policy_state": start}
        trained = gradients(lambda: networks.unroll(cell, inputs, features))
        acted = gradients(lambda: act(cell, inputs, resets, start))
        for ours, expected in zip(trained, acted, strict=True):
            close(ours, expected, 1e-4)

    @pytest.mark.parametrize(
        ("kind", "static", "jit_compile"),
        [
            *((kind, static, False) for kind in CELLS for static in (True, False)),
            # XLA takes static shapes.
            ("lstm", True, True),
            ("gru", True, True),
        ],
    )
    def test_compiled_it_is_the_same(self, kind, static, jit_compile):
        tf_keras.utils.set_random_seed(0)
        cell = CELLS[kind]()
        inputs, resets = sequence()
        networks.unroll(cell, inputs, {})

        def step(inputs, resets):
            with tf.GradientTape() as tape:
                outputs, state = networks.unroll(cell, inputs, {"reset": resets})
                loss = tf.reduce_mean(outputs**2)
            return outputs, state, tape.gradient(loss, cell.trainable_variables)

        leading = [LENGTH, BATCH] if static else [None, None]
        signature = [tf.TensorSpec([*leading, 5]), tf.TensorSpec(leading, tf.bool)]
        compiled = tf.function(step, input_signature=signature, jit_compile=jit_compile)
        for ours, expected in zip(compiled(inputs, resets), step(inputs, resets), strict=True):
            close(ours, expected, 1e-5)

    @pytest.mark.parametrize("kind", ["lstm", "gru"])
    def test_it_is_keras_own_layer_where_nothing_resets(self, kind):
        tf_keras.utils.set_random_seed(0)
        cell = CELLS[kind]()
        inputs, _ = sequence()
        outputs, _ = networks.unroll(cell, inputs, {})
        layer = tf_keras.layers.RNN(cell, return_sequences=True, time_major=True)
        close(outputs, layer(inputs), 1e-6)

    @each_cell
    def test_names_are_the_same_in_every_mode(self, kind):
        acting = variables_of(lambda: networks.unroll(CELLS[kind](), tf.zeros([2, 5]), {}))
        training = variables_of(lambda: networks.unroll(CELLS[kind](), tf.zeros([3, 2, 5]), {}))
        assert set(acting) == set(training)
        assert all(name.startswith("memory/") for name in acting)

    def test_several_cells_keep_their_states_apart(self):
        actor, critic = CELLS["lstm"](), CELLS["gru"]()
        inputs, _ = sequence()
        _, actor_state = networks.unroll(actor, inputs, {})
        expected, critic_state = networks.unroll(critic, inputs, {})
        features = {"policy_state": {"actor": actor_state, "critic": critic_state}}
        outputs, _ = networks.unroll(critic, inputs[0], features, state_key="critic")
        close(outputs, critic(inputs[0], critic_state)[0])
        assert expected.shape == [LENGTH, BATCH, 4]

    def test_inputs_of_another_rank(self):
        with pytest.raises(ValueError, match=r"\[B, features\] or \[T, B, features\], got"):
            networks.unroll(CELLS["gru"](), tf.zeros([2, 3, 4, 5]), {})

    def test_a_state_of_another_number_of_tensors(self):
        with pytest.raises(ValueError, match="memory must be 2 tensors.*state_key"):
            networks.unroll(CELLS["lstm"](), tf.zeros([2, 3]), {"policy_state": tf.zeros([2, 4])})
