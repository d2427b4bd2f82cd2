"""Whatever is trained, limited, broken off and resumed: the environment's own book is right.

A few programs, always the same, belong to the tests. `make programs` runs as many others as wanted,
each time others, and prints how to run one that failed again.
"""

import os
import pathlib
import tempfile

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests import model_fns
from tests.agents import random_programs

pytestmark = pytest.mark.slow

WANTED = os.environ.get("PGEST_PROGRAMS")
bounded = settings(
    max_examples=int(WANTED or 4),
    derandomize=WANTED is None,
    database=None,
    deadline=None,
    print_blob=True,
    phases=[Phase.explicit, Phase.generate],  # to shrink one takes a quarter of an hour
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module", autouse=True)
def told():
    yield
    print(f"\n{next(random_programs.calls)} calls of train")


@bounded
@given(random_programs.programs())
def test_the_book_of_the_environment_says_what_everything_else_says(program):
    with tempfile.TemporaryDirectory() as directory:
        random_programs.run(program, pathlib.Path(directory))


@bounded
@given(random_programs.programs())
def test_two_equal_seeds_are_bit_equal(program):
    found = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as directory:
            lives = random_programs.run(program, pathlib.Path(directory))
        books = [(env.book, env.actions) for life in lives for env in life.made]
        found.append((model_fns.weights(lives[-1].agent), books))
    (weights, books), (weights_again, books_again) = found
    assert books == books_again
    assert weights.keys() == weights_again.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(value, weights_again[name], err_msg=name)
