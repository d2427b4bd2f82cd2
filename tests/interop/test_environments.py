"""Environments of other packages: what pgest stores is what each of them has written down."""

import json

import pytest

from tests.interop import own_environments, recorded_environments

pytestmark = [pytest.mark.interop, pytest.mark.slow]


@pytest.fixture(scope="module")
def lives(tmp_path_factory):
    """The directory where `train_in.py` has left what came of each environment."""
    directory = tmp_path_factory.mktemp("lives")
    arguments = ("train_in.py", str(directory), *recorded_environments.MAKERS)
    try:
        own_environments.ENVIRONMENTS.run(*arguments, with_pgest=True)
    except own_environments.NotAvailableError as reason:
        pytest.skip(f"no environments: {reason}")
    return directory


@pytest.mark.parametrize("name", recorded_environments.MAKERS)
def test_what_is_stored_is_what_the_environment_did(lives, name):
    failed = lives / f"{name}.txt"
    assert not failed.exists(), failed.read_text()
    trained, resumed = json.loads((lives / f"{name}.json").read_text())
    assert min(trained) >= 40 and min(resumed) >= 24
