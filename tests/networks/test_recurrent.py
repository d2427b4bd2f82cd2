"""unroll: acting step by step and training along time are the same, for every cell."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from pgest import networks
from pgest.networks import gated_cells
from tests.distributions.distribution_families import close
from tests.networks.test_networks import variables_of

CELLS = {
    "lstm": lambda: tf_keras.layers.LSTMCell(4, name="memory"),
    "gru": lambda: tf_keras.layers.GRUCell(4, name="memory"),
    "simple": lambda: tf_keras.layers.SimpleRNNCell(4, name="memory"),
    "lstm without bias": lambda: tf_keras.layers.LSTMCell(4, use_bias=False, name="memory"),
    "lstm of another kind": lambda: tf_keras.layers.LSTMCell(
        4, activation="relu", use_bias=False, name="memory"
    ),
    "gru of another kind": lambda: tf_keras.layers.GRUCell(4, reset_after=False, name="memory"),
    "gru without bias": lambda: tf_keras.layers.GRUCell(4, use_bias=False, name="memory"),
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

    @pytest.mark.parametrize("kind", ["lstm", "gru"])
    @pytest.mark.parametrize("compiled", [True, False])
    def test_second_derivatives_are_those_of_any_cell(self, kind, compiled, monkeypatch):
        """Fisher-vector products take them."""
        tf_keras.utils.set_random_seed(0)
        cell = CELLS[kind]()
        inputs, resets = sequence()
        networks.unroll(cell, inputs, {})
        weights = cell.trainable_variables

        def product():
            with tf.GradientTape() as outer:
                with tf.GradientTape() as inner:
                    outputs, state = networks.unroll(cell, inputs, {"reset": resets})
                    loss = tf.reduce_sum(outputs**3)
                    loss += sum(tf.reduce_sum(part**2) for part in tf.nest.flatten(state))
                slope = tf.add_n([tf.reduce_sum(g**2) for g in inner.gradient(loss, weights)])
            return outer.gradient(slope, weights)

        def products():
            return tf.function(product, jit_compile=True)() if compiled else product()

        ours = products()
        monkeypatch.setattr(gated_cells, "takes", lambda cell: False)
        for own, expected in zip(ours, products(), strict=True):
            close(own, expected, 1e-4 * float(tf.reduce_max(tf.abs(expected))))

    @pytest.mark.parametrize("kind", ["lstm", "gru"])
    def test_the_weights_gradient_is_no_sum_along_time(self, kind):
        """In a loop it would be read and written once a step."""
        cell = CELLS[kind]()
        inputs, _ = sequence()
        networks.unroll(cell, inputs, {})

        def step():
            with tf.GradientTape() as tape:
                outputs, _ = networks.unroll(cell, inputs, {})
                loss = tf.reduce_sum(outputs)
            return tape.gradient(loss, cell.trainable_variables)

        definition = tf.function(step).get_concrete_function().graph.as_graph_def()
        in_loops = [
            node.attr["transpose_a"].b
            for function in definition.library.function
            for node in function.node_def
            if node.op == "MatMul"
        ]
        # One forwards, one backwards; what makes the weights' gradient transposes its left side.
        assert in_loops == [False, False]

    @pytest.mark.parametrize(
        "cell",
        [
            type("OwnCell", (tf_keras.layers.LSTMCell,), {})(4),
            tf_keras.layers.LSTMCell(4, recurrent_dropout=0.5),
            tf_keras.layers.LSTMCell(4, recurrent_activation="hard_sigmoid"),
            tf_keras.layers.GRUCell(4, dropout=0.5),
            tf_keras.layers.GRUCell(4, reset_after=False),
            tf_keras.layers.GRUCell(4, activation="relu"),
            tf_keras.layers.GRUCell(4, dtype="mixed_bfloat16"),
        ],
        ids=lambda cell: cell.name,
    )
    def test_what_keras_computes_otherwise_keras_computes(self, cell):
        assert not gated_cells.takes(cell)

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
