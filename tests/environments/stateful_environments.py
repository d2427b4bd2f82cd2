"""Environments that are no function of seed and actions, but give their state."""

import gymnasium
import numpy as np
from gymnasium import spaces


class Drifting(gymnasium.Env):
    """Drifts by random numbers that no seed reaches; what it gives as its state is `kind`.

    The kinds are array, bytes, and dict: the position, how long the episode is, and the generator.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, kind="array"):
        self.kind = kind
        self.numbers = np.random.Generator(np.random.Philox())
        self.position, self.steps, self.taken = np.zeros(2), 0, 0

    def observe(self):
        return self.position.astype(np.float32)

    def reset(self, *, seed=None, options=None):
        self.position, self.steps = self.numbers.normal(size=2), 0
        return self.observe(), {}

    def step(self, action):
        self.position = self.position + self.numbers.normal(size=2) * (1 + action)
        self.steps, self.taken = self.steps + 1, self.taken + 1
        reward = float(np.round(self.position[0], 2))
        return self.observe(), reward, bool(self.position[1] > 3.0), self.steps >= 9, {}

    def get_state(self):
        state = self.numbers.bit_generator.state
        counter, key = state["state"]["counter"], state["state"]["key"]
        rest = np.array([state["buffer_pos"], self.steps], np.uint64)
        numbers = np.concatenate([counter, key, state["buffer"], rest, self.position.view("u8")])
        if self.kind == "dict":
            return {"position": self.position.copy(), "rest": numbers.tobytes()}
        return numbers.tobytes() if self.kind == "bytes" else numbers

    def set_state(self, state):
        numbers = state["rest"] if self.kind == "dict" else state
        if isinstance(numbers, bytes):
            numbers = np.frombuffer(numbers, np.uint64)
        whole = self.numbers.bit_generator.state
        whole["state"] = {"counter": numbers[:4], "key": numbers[4:6]}
        whole["buffer"], whole["buffer_pos"] = numbers[6:10], int(numbers[10])
        self.numbers.bit_generator.state = whole
        self.steps, self.position = int(numbers[11]), numbers[12:14].view("f8").copy()


class Masked(Drifting):
    """Forbids an action at every third timestep, and shows its observation when it is set."""

    def info(self):
        return {"action_mask": np.array([self.steps % 3 != 0, True])}

    def reset(self, **arguments):
        return super().reset(**arguments)[0], self.info()

    def step(self, action):
        if not self.info()["action_mask"][action]:
            raise ValueError(f"{action} is forbidden")
        *rest, _ = super().step(action)
        return *rest, self.info()

    def set_state(self, state):
        super().set_state(state)
        return self.observe()


class LosesItsPlace(Drifting):
    """Takes its state, and stands at the origin."""

    def set_state(self, state):
        super().set_state(state)
        self.position = np.zeros(2)


class ShowsSomethingElse(Drifting):
    """Takes its state, and shows another observation than the one before."""

    def set_state(self, state):
        super().set_state(state)
        return self.observe() + 1.0


def masked():
    return Masked()


def drifting():
    return Drifting("dict")
