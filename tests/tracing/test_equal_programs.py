"""Programs of equal graphs run one compiled function, each on its own variables."""

import pytest
import tensorflow as tf

from pgest.tracing import equal_programs, lru, programs


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(equal_programs, "_known", lru.LRUCache(16))


def counting(start, factor=2.0, drawing=False):
    """A program with a loop, a function and a gradient of its own; and its variable."""
    variable = tf.Variable(start)

    @tf.custom_gradient
    def scaled(x):
        return factor * x, lambda gradient: gradient

    @tf.function(autograph=False)
    def nested(x):
        return scaled(x) + variable

    def run(x):
        (gradient,) = tf.gradients(tf.reduce_sum(scaled(x)), [x])
        _, total = tf.while_loop(
            lambda row, _: row < 3, lambda row, sums: (row + 1, sums + nested(x)), (0, x)
        )
        variable.assign_add(1.0)
        return total + gradient + (tf.random.uniform([2]) if drawing else 0.0)

    program = programs.Program(run, [tf.TensorSpec([2])], "counting", True)
    return program, variable


def ran(program):
    return program(tf.ones([2])).numpy().tolist()


def function_run_by(program):
    return equal_programs.known(equal_programs.key_of(program.concrete))


def test_equal_programs_run_one_function_on_their_own_variables():
    (first, one), (second, ten) = counting(1.0), counting(10.0)
    assert ran(first) == [11.0, 11.0]
    assert ran(second) == [38.0, 38.0]
    assert ran(first) == [14.0, 14.0]
    assert (one.numpy(), ten.numpy()) == (3.0, 11.0)
    assert function_run_by(second) is first.concrete.inference_fn


def test_another_constant_is_another_program():
    (first, _), (second, _) = counting(1.0), counting(1.0, factor=3.0)
    assert ran(first) == [11.0, 11.0]
    assert ran(second) == [14.0, 14.0]
    assert function_run_by(second) is second.concrete.inference_fn


def test_what_draws_from_a_state_is_not_shared():
    program, _ = counting(1.0, drawing=True)
    ran(program)
    assert equal_programs.key_of(program.concrete) is None
    assert not equal_programs._known


def test_the_one_that_was_used_longest_ago_is_forgotten(monkeypatch):
    monkeypatch.setattr(equal_programs, "_known", lru.LRUCache(2))
    made = [counting(1.0, factor)[0] for factor in (1.0, 2.0)]
    for program in (*made, counting(1.0, 1.0)[0], counting(1.0, 3.0)[0]):
        ran(program)
    assert function_run_by(made[0]) is made[0].concrete.inference_fn
    assert function_run_by(made[1]) is None


def test_what_runs_without_xla_is_not_kept():
    program = programs.Program(lambda x: 2 * x, [tf.TensorSpec([2])], "doubling", False)
    assert ran(program) == [2.0, 2.0]
    assert not equal_programs._known
