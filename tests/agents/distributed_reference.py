"""One worker that does alone what several do: it draws actions and minibatches shard by shard."""

import contextlib

import numpy as np
import tensorflow as tf

import pgest
from pgest import graph_environments
from pgest.tracing import updating
from tests.agents import distributed_cases


def sharded(model_fn, shards):
    """A model_fn whose actions are drawn for one shard of the environments after the other."""

    def wrapped(features, labels, mode):
        spec = model_fn(features, labels, mode)
        if mode is pgest.Modes.PREDICT:
            distribution = spec.distribution

            def sample(seed):
                rows = distribution.batch_shape[0] // shards
                fold = tf.random.experimental.stateless_fold_in
                parts = [
                    type(distribution).sample(
                        distribution[rank * rows : (rank + 1) * rows], seed=fold(seed, rank)
                    )
                    for rank in range(shards)
                ]
                return tf.concat(parts, 0)

            distribution.sample = sample
        return spec

    return wrapped


@contextlib.contextmanager
def sharded_minibatches(monkeypatch, shards, whole):
    """Inside, a minibatch of `whole` environments takes from each shard what its worker would."""

    def permutations(graph, rows, step):
        if not graph._minibatches:
            return np.zeros([graph._config.epochs, rows], np.int32)
        own, size = rows // shards, graph._minibatches // shards
        parts = []
        for rank in range(shards):
            generator = np.random.default_rng([graph._model.seed, step, rank])
            order = np.tile(np.arange(own, dtype=np.int32), (graph._config.epochs, 1))
            order = generator.permuted(order, axis=1, out=order)
            parts.append(place(order, rank, own))
        pieces = [part[:, begin : begin + size] for begin in range(0, own, size) for part in parts]
        return np.concatenate(pieces, axis=1)

    def place(order, rank, own):
        """The rows of a whole batch that are rows `order` of a worker's batch."""
        if own == whole // shards:  # environments
            return rank * own + order
        num_envs = whole // shards  # row = time * environments + environment
        time, environment = order // num_envs, order % num_envs
        return time * whole + rank * num_envs + environment

    with monkeypatch.context() as patch:
        patch.setattr(updating.UpdateGraph, "permutations", permutations)
        # As theirs: XLA's functions round in another way.
        patch.setattr(updating.UpdateGraph, "jit_compile", lambda *_, **__: False)
        yield


class Shards(graph_environments.GraphEnvironment):
    """Environments in the graph of which each shard has the random numbers of its worker."""

    def __init__(self, part, shards):
        super().__init__(part.observation_space, part.action_space, num_envs=part.num_envs * shards)
        self.part, self.shards = part, shards
        self.start, self.advance = part.start, part.advance
        self.observe = part.observe

    def initial(self, seed):
        return self._joined([self.part.initial(fold) for fold in self._seeds(seed)])

    def step(self, state, action, seed):
        rows = self.part.num_envs
        results = []
        for rank, fold in enumerate(self._seeds(seed)):
            own = tf.nest.map_structure(
                lambda leaf, at=rank * rows: leaf[at : at + rows], (state, action)
            )
            results.append(self.part.step(*own, fold))
        return self._joined(results)

    def start(self, seed):
        raise NotImplementedError

    advance = observe = start

    def _seeds(self, seed):
        fold = tf.random.experimental.stateless_fold_in
        return [fold(seed, rank) for rank in range(self.shards)]

    def _joined(self, parts):
        return tf.nest.map_structure(
            lambda *leaves: None if leaves[0] is None else tf.concat(leaves, 0), *parts
        )


def run(name, monkeypatch, shards):
    """What one worker with all environments comes to: weights by name, and a report."""
    case, hook = distributed_cases.CASES[name], distributed_cases.metrics_hook()
    agent = case.agent(1, wrap=lambda model_fn: sharded(model_fn, shards))
    with sharded_minibatches(monkeypatch, shards, case.num_envs):
        env = Shards(case.environment(shards), shards) if case.graph else case.environment(1)
        agent.train(env, hooks=[hook], **case.limits)
    return distributed_cases.result(agent, hook.seen)
