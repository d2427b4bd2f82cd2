"""What several workers cannot do together; each ends with one sentence, on all workers alike."""

import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

import pgest
from tests.agents import distributed_cases


def apart(features, labels, mode):
    """A model_fn that takes a step by what this worker alone has seen."""
    dense = tf_keras.layers.Dense(2, name="policy")
    distribution = tfp.distributions.Categorical(logits=dense(features["state"]))
    if mode == pgest.Modes.PREDICT:
        return pgest.EstimatorSpec(mode, distribution=distribution)
    loss = -tf.reduce_mean(distribution.log_prob(labels["action"]) * labels["advantage"])
    gradients = tf.gradients(loss, dense.variables)
    steps = [v.assign_sub(0.1 * g) for v, g in zip(dense.variables, gradients, strict=True)]
    return pgest.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=tf.group(steps))


class Overriding(pgest.PGAgent):
    def run_episode(self, env, sess, *rest):
        return super().run_episode(env, sess, *rest)


def weighted(features, labels, mode):
    """Its weight becomes minus the mean of the cart's position, over all workers."""
    dense = tf_keras.layers.Dense(2, kernel_initializer="zeros", name="policy")
    distribution = tfp.distributions.Categorical(logits=dense(features["state"]))
    if mode == pgest.Modes.PREDICT:
        return pgest.EstimatorSpec(mode, distribution=distribution)
    weight = tf.Variable(0.0, name="weight")
    own = tf.Variable([0.0, 0.0], trainable=False, name="environment/own")
    position = features["state"][:, 0]
    loss = weight * tf.reduce_mean(position)
    train_op = pgest.minimize(loss, tf_keras.optimizers.SGD(1.0), [weight])
    count = tf.cast(tf.size(position), tf.float32)
    metrics = {"position": tf.reduce_mean(position)}
    noted = own.assign([tf.reduce_sum(position), count])
    return pgest.EstimatorSpec(
        mode, distribution=distribution, loss=loss, train_op=train_op, metrics=metrics,
        extra_ops=[noted],
    )  # fmt: skip


def one_update(strategy):
    """The weight after one update of whole episodes, and what this worker saw."""
    config = pgest.RunConfig(tf_random_seed=1, train_distribute=strategy)
    agent = pgest.PGAgent(weighted, pgest.BatchMemory(episodes=3), config=config)
    hook = distributed_cases.metrics_hook()
    agent.train("CartPole-v1", max_steps=1, hooks=[hook])
    return {
        "own": agent.get_variable_value("environment/own").tolist(),
        "weight": float(agent.get_variable_value("weight")),
        "metric": hook.seen[0]["position"],
    }


def telling(features, labels, mode):
    """A model_fn with a summary of its own, which counts how often it is traced."""
    telling.traced += 1
    spec = pgest.models.A2C(**distributed_cases.SMALL)(features, labels, mode)
    if mode == pgest.Modes.TRAIN:
        tf.summary.scalar("own/loss", spec.loss)
    return spec


telling.traced = 0


class Traced(pgest.BaseMonitor):
    """How often `telling` had been traced after each update."""

    every_worker = True

    def begin(self, context):
        self.seen = []

    def after_run(self, context):
        self.seen.append(telling.traced)


def summaries(strategy, directory):
    """Updates of which each second one runs the summaries of the model_fn."""
    config = pgest.RunConfig(
        str(directory / "summaries"), 1, save_summary_steps=2, save_histograms=True,
        save_graph=True, train_distribute=strategy,
    )  # fmt: skip
    agent = pgest.PGAgent(telling, pgest.RolloutMemory(16), config=config)
    hook = Traced()
    agent.train("CartPole-v1", max_steps=8, hooks=[hook])
    return {"steps": agent.global_step, "traced": hook.seen}


def messages(strategy, rank, directory):
    """What is said, by what was tried."""
    config = pgest.RunConfig(tf_random_seed=1, train_distribute=strategy)
    made = [config.is_chief, config.num_worker_replicas, config.task_type, config.task_id]

    def train(env="CartPole-v1", model=None, kind=pgest.PGAgent, memory=None, **limits):
        update = {} if memory is None else {"minibatch_size": 16}
        memory = memory or pgest.RolloutMemory(16)
        model = model or pgest.models.A2C(**distributed_cases.SMALL)
        kind(model, memory, update, config=config).train(env, **{"max_steps": 2, **limits})

    tried = {
        "episodes": lambda: train(memory=pgest.BatchMemory(100)),
        "override": lambda: train(kind=Overriding),
        "overlap": lambda: pgest.RunConfig(train_distribute=strategy, overlap_updates=True),
        "compile": lambda: pgest.RunConfig(train_distribute=strategy, jit_compile=True),
        "num_envs": lambda: train(pgest.make("CartPole-v1", num_envs=2 + rank)),
        "limits": lambda: train(max_steps=2 + rank),
        "apart": lambda: train(model=apart),
    }
    said = {}
    for name, attempt in tried.items():
        try:
            attempt()
            said[name] = "nothing"
        except ValueError as error:
            said[name] = str(error)
    own = one_update(strategy)
    return {"config": made, "said": said, "weighted": own, **summaries(strategy, directory)}
