"""Small Python policies with known behaviour, for the tests of policies."""

import numpy as np
import tensorflow as tf

from pgest import specs
from pgest.policies import py_policies, time_steps
from pgest.policies.time_steps import PolicyStep

TIME_STEP = time_steps.time_step_spec({"x": specs.ArraySpec((4,), np.float32)})
ACTION = specs.BoundedArraySpec((2,), np.float32, -1, 1, "action")


def restart(rows=1, value=0.0):
    return time_steps.restart({"x": tf.fill((rows, 4), value)}, batch_size=rows)


class CountingPolicy(py_policies.PyPolicy):
    """A recurrent policy with info: the state counts from 10; works on one row or on batches."""

    def __init__(self):
        super().__init__(
            TIME_STEP,
            ACTION,
            policy_state_spec={"count": specs.ArraySpec((), np.int64)},
            info_spec=(specs.ArraySpec((3,), np.float32),),
        )
        self.seen = []

    def _get_initial_state(self, batch_size):
        self.seen.append(batch_size)
        return {"count": np.full(() if batch_size is None else (batch_size,), 10, np.int64)}

    def _action(self, time_step, policy_state, seed=None):
        self.seen.append((time_step, policy_state, seed))
        outer = np.shape(time_step.step_type)
        count = policy_state["count"] + 1
        action = np.zeros((*outer, 2), np.float32) + np.asarray(count, np.float32)[..., None]
        return PolicyStep(action, {"count": count}, (np.ones((*outer, 3), np.float32),))


class Returning(py_policies.PyPolicy):
    """Returns what it was made with."""

    def __init__(self, action, spec=ACTION):
        super().__init__(TIME_STEP, spec)
        self.returned = action

    def _action(self, time_step, policy_state):
        if isinstance(self.returned, Exception):
            raise self.returned
        return PolicyStep(self.returned, policy_state)
