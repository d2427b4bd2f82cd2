"""Small policies with known behaviour, for the tests of policies."""

import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

from pgest import specs
from pgest.policies import ready_made, time_steps
from pgest.policies.time_steps import PolicyStep

tfd = tfp.distributions

OBSERVATION = tf.TensorSpec((4,), tf.float32, "observation")
TIME_STEP = time_steps.time_step_spec(OBSERVATION)
DISCRETE = specs.BoundedTensorSpec((), tf.int64, 0, 2, "action")
BOX = specs.BoundedTensorSpec((2,), tf.float32, -1, 1, "action")


def restart(rows=3, value=0.0):
    return time_steps.restart(tf.fill((rows, 4), value), batch_size=rows)


class NormalPolicy(ready_made.TFPolicy):
    """A Keras network into a normal distribution, built when it is first used."""

    def __init__(self, name=None, scale=1.0, **options):
        super().__init__(TIME_STEP, BOX, name=name, **options)
        self.count = tf.Variable(0, name="count", trainable=False)
        self.network = tf_keras.Sequential([tf_keras.layers.Dense(2, name="mean")])
        self.scale = scale

    def _distribution(self, time_step, policy_state):
        mean = self.network(time_step.observation)
        return PolicyStep(tfd.MultivariateNormalDiag(mean, [self.scale] * 2), policy_state)


class CategoricalPolicy(ready_made.TFPolicy):
    """Logits that are a variable; int32 samples for an int64 spec, as usual with gymnasium."""

    def __init__(self, logits=(0.0, 1.0, 2.0), **options):
        super().__init__(TIME_STEP, DISCRETE, **options)
        self.logits = tf.Variable(logits, name="logits")

    def _distribution(self, time_step, policy_state):
        logits = tf.tile(self.logits[tf.newaxis], [tf.shape(time_step.step_type)[0], 1])
        return PolicyStep(tfd.Categorical(logits=logits), policy_state)


class CountingPolicy(ready_made.TFPolicy):
    """A recurrent policy: its state counts steps from 10 and is the action."""

    def __init__(self, **options):
        state = [tf.TensorSpec((), tf.float32), {"wide": tf.TensorSpec((2,), tf.int32)}]
        super().__init__(TIME_STEP, tf.TensorSpec((), tf.float32), state, **options)

    def _get_initial_state(self, batch_size):
        outer = [] if batch_size is None else [batch_size]
        return [tf.fill(outer, 10.0), {"wide": tf.fill([*outer, 2], 5)}]

    def _action(self, time_step, policy_state, seed):
        count = policy_state[0] + 1
        return PolicyStep(count, [count, {"wide": policy_state[1]["wide"] * 2}])


class ConstantPolicy(ready_made.TFPolicy):
    """Returns what it was given, to look at the checks."""

    def __init__(self, action, action_spec, **options):
        super().__init__(TIME_STEP, action_spec, **options)
        self._constant = lambda: action

    def _action(self, time_step, policy_state, seed):
        self.seen = lambda: time_step
        return PolicyStep(self._constant(), policy_state)
