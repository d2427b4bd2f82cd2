"""UpdateConfig: what the agent does around the train_op."""

import dataclasses

import pytest

import pgest


def test_the_defaults():
    config = pgest.UpdateConfig()
    assert (config.discount, config.gae_lambda, config.normalize_advantage) == (0.99, 0.95, True)
    assert (config.epochs, config.minibatch_size, config.target_kl) == (1, None, None)


def test_of_takes_a_dict_a_config_or_nothing():
    config = pgest.UpdateConfig(discount=0.9)
    assert pgest.UpdateConfig.of(config) is config
    assert pgest.UpdateConfig.of({"discount": 0.9}) == config
    assert pgest.UpdateConfig.of(None) == pgest.UpdateConfig()
    assert pgest.UpdateConfig.of({}) == pgest.UpdateConfig()


def test_an_unknown_key_names_the_valid_ones():
    with pytest.raises(ValueError, match="unknown gamma, lr; expected any of discount, gae_lambda"):
        pgest.UpdateConfig.of({"lr": 1, "gamma": 0.9})


def test_something_else_is_refused():
    with pytest.raises(TypeError, match="optimizer_params is list; expected a dict"):
        pgest.UpdateConfig.of([("discount", 0.9)])


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"discount": 1.5}, ValueError, "discount is 1.5; expected 0.0 to 1.0"),
        ({"discount": float("nan")}, ValueError, "discount is nan"),
        ({"discount": "0.9"}, TypeError, "discount is '0.9'; expected a number"),
        ({"gae_lambda": -0.1}, ValueError, "gae_lambda is -0.1"),
        ({"gae_lambda": True}, TypeError, "gae_lambda is True"),
        ({"normalize_advantage": 1}, TypeError, "normalize_advantage is 1; expected a bool"),
        ({"epochs": 0}, ValueError, "epochs is 0; expected a positive integer"),
        ({"epochs": 1.0}, TypeError, "epochs is 1.0"),
        ({"epochs": None}, TypeError, "epochs is None"),
        ({"minibatch_size": 0}, ValueError, "minibatch_size is 0"),
        ({"minibatch_size": True}, TypeError, "minibatch_size is True"),
        ({"target_kl": -1.0}, ValueError, "target_kl is -1.0"),
    ],
)
def test_what_is_out_of_range_is_an_error(settings, error, message):
    with pytest.raises(error, match=message):
        pgest.UpdateConfig(**settings)


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        pgest.UpdateConfig().discount = 0.5
