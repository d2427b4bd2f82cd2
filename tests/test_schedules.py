"""schedules.py: clocks and values; how models follow them is in test_models.py."""

import pytest
import tf_keras

from pgest import schedules
from pgest.variables import counters as counters_lib


@pytest.fixture
def counters():
    counters = counters_lib.Counters()
    counters.timestep = 500
    counters.publish(progress=0.25)
    counters.variables["global_step"].assign(30)
    return counters


@pytest.mark.parametrize(
    ("clock", "expected"), [("global_step", 30), ("global_timestep", 500), ("progress", 0.25)]
)
def test_every_clock(counters, clock, expected):
    schedule = schedules.Schedule(lambda time: 2.0 * time, clock=clock)
    assert float(schedules.value(schedule, counters)) == 2.0 * expected


def test_a_number_stays_as_it_is():
    assert schedules.value(0.3) == 0.3
    assert schedules.learning_rate(0.3) == 0.3


def test_a_schedule_of_keras_follows_global_step(counters):
    decay = tf_keras.optimizers.schedules.PolynomialDecay(1.0, 60, 0.0)
    assert float(schedules.value(decay, counters)) == pytest.approx(0.5)


def test_linear_stays_at_its_end(counters):
    schedule = schedules.linear(1.0, 0.5, over=100, clock="global_timestep")
    assert float(schedules.value(schedule, counters)) == 0.5
    schedule = schedules.linear(1.0, 0.0)
    assert float(schedules.value(schedule, counters)) == 0.75


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="clock='episodes'; expected one of"):
        schedules.Schedule(lambda time: time, clock="episodes")
    with pytest.raises(TypeError, match="got the function 0.5, which cannot be called"):
        schedules.Schedule(0.5)
    with pytest.raises(ValueError, match="over=0; expected more than 0"):
        schedules.linear(1.0, 0.0, over=0)


def test_a_line_is_shown_as_it_is_written():
    assert repr(schedules.linear(3e-3, 0.0)) == "linear(0.003, 0.0)"
    written = "linear(1.0, 0.1, over=10000, clock='global_timestep')"
    assert repr(schedules.linear(1.0, 0.1, over=10_000, clock="global_timestep")) == written
    assert repr(schedules.Schedule(abs, "global_step")).startswith(
        "Schedule(<built-in function abs"
    )
