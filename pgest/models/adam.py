"""Adam that is traced and compiled faster."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras


class Adam(tf_keras.optimizers.Adam):
    """`tf_keras.optimizers.Adam` that computes what is the same for all variables once a step.

    Keras does for each variable. The weights are the same, bit for bit.
    """

    def apply_gradients(self, grads_and_vars: Any, *args: Any, **kwargs: Any) -> Any:
        """Applies them; the step size is that of this step, in the graph being traced."""
        self._numbers: dict[tuple[tf.DType, Any], tuple[tf.Tensor, ...]] = {}
        return super().apply_gradients(grads_and_vars, *args, **kwargs)

    def update_step(self, gradient: Any, variable: tf.Variable) -> None:
        """Moves one variable and its moments (Kingma & Ba 2015, end of section 2)."""
        if isinstance(gradient, tf.IndexedSlices) or self.amsgrad or self.adaptive_epsilon:
            super().update_step(gradient, variable)
            return
        place = self._index_dict[self._var_key(variable)]
        m, v = self._momentums[place], self._velocities[place]
        rest_1, rest_2, epsilon, step_size = self._numbers_of(variable.dtype)
        m.assign_add((gradient - m) * rest_1)
        v.assign_add((tf.square(gradient) - v) * rest_2)
        variable.assign_sub(m * step_size / (tf.sqrt(v) + epsilon))

    def _numbers_of(self, dtype: tf.DType) -> tuple[tf.Tensor, ...]:
        """1 - beta_1, 1 - beta_2, epsilon and the corrected step size, once a graph and dtype."""
        # On GPUs Keras gives each variable a graph of its own.
        key = dtype, tf.compat.v1.get_default_graph()
        if key not in self._numbers:
            numbers = 1 - self.beta_1, 1 - self.beta_2, self.epsilon
            constants = [tf.convert_to_tensor(number, dtype) for number in numbers]
            self._numbers[key] = (*constants, self._step_size(dtype))
        return self._numbers[key]

    def _step_size(self, dtype: tf.DType) -> tf.Tensor:
        step = tf.cast(self.iterations + 1, dtype)
        beta_1_power = tf.pow(tf.cast(self.beta_1, dtype), step)
        beta_2_power = tf.pow(tf.cast(self.beta_2, dtype), step)
        rate = tf.cast(self.learning_rate, dtype)
        return rate * tf.sqrt(1 - beta_2_power) / (1 - beta_1_power)
