"""What `export_saved_model` writes, taken by converters, runtimes and a server: it agrees there.

The greedy actions of a thousand observations are the same; floats to 1e-5 of their range. A family
that a converter does not take is in `REFUSED`, with what it says, and a test sees it refuse.
"""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

from tests.interop import exported_agents, own_environments

pytestmark = [pytest.mark.interop, pytest.mark.slow]

FAMILIES = list(exported_agents.FAMILIES)
RANGE = 1e-5
# By converter and family: what stands in the way.
REFUSED = {
    ("keras", "masks"): "takes 0 positional arguments",
    ("keras", "lstm"): "takes 0 positional arguments",
    ("keras", "gru"): "takes 0 positional arguments",
    ("keras", "nested"): "takes 0 positional arguments",
    ("tensorflowjs", "lstm"): "policy_state/0",  # not among the signature's inputs
}
# Converters that an environment with all others has no room for.
OWN = {"tensorflowjs": own_environments.TENSORFLOWJS}
# What is not allowed has a score of -1e9, so one of the 256 steps is left to all other scores.
NOT_IN_EIGHT_BITS = {"masks", "multi_discrete", "nested"}


@pytest.fixture(scope="module")
def python():
    try:
        return own_environments.CONVERTERS.python()
    except own_environments.NotAvailableError as reason:
        pytest.skip(f"no converters: {reason}")


@pytest.fixture(scope="module")
def exports(python, tmp_path_factory):
    """What `exported_agents.export` gives, by family."""
    directory = tmp_path_factory.mktemp("exports")
    return {
        name: exported_agents.export(family, str(directory / name))
        for name, family in exported_agents.FAMILIES.items()
    }


@pytest.fixture(scope="module")
def converted(exports, tmp_path_factory):
    """The directory of a converter's results; a converter runs once, over all families."""
    made = {}

    def results(converter):
        if converter not in made:
            directory = tmp_path_factory.mktemp(converter)
            jobs = {name: {**job, "results": str(directory)} for name, job in exports.items()}
            (directory / "jobs.json").write_text(json.dumps(jobs))
            arguments = ("convert_policy.py", converter, str(directory / "jobs.json"))
            environment = OWN.get(converter, own_environments.CONVERTERS)
            try:
                environment.run(*arguments, timeout=900)
            except own_environments.NotAvailableError as reason:
                pytest.skip(f"no {converter}: {reason}")
            made[converter] = directory
        return made[converter]

    return results


def outputs(directory, family):
    reason = directory / f"{family}.txt"
    assert not reason.exists(), reason.read_text()
    return np.load(directory / f"{family}.npz")


def assert_agrees(converted, exports, converter, family):
    """The family's results are what TensorFlow gave, or the refusal that is known."""
    directory = converted(converter)
    if (converter, family) in REFUSED:
        assert REFUSED[converter, family] in (directory / f"{family}.txt").read_text()
        return
    found, wanted = outputs(directory, family), np.load(exports[family]["wanted"])
    assert sorted(found.files) == sorted(wanted.files)
    for name in wanted.files:
        left, right = found[name], wanted[name]
        assert left.shape == right.shape
        if right.dtype.kind == "i":
            np.testing.assert_array_equal(left, right, err_msg=name)
        else:
            np.testing.assert_allclose(left, right, rtol=0, atol=RANGE * np.ptp(right))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_compared_differs_from_row_to_row(exports, family):
    wanted = np.load(exports[family]["wanted"])
    assert all(len(np.unique(wanted[name], axis=0)) > 1 for name in wanted.files)


@pytest.mark.parametrize("family", FAMILIES)
def test_onnx(converted, exports, family):
    assert_agrees(converted, exports, "onnx", family)


@pytest.mark.parametrize("family", FAMILIES)
def test_litert(converted, exports, family):
    assert_agrees(converted, exports, "litert", family)


@pytest.mark.parametrize("family", FAMILIES)
def test_openvino(converted, exports, family):
    assert_agrees(converted, exports, "openvino", family)


@pytest.mark.parametrize("family", FAMILIES)
def test_keras_3(converted, exports, family):
    assert_agrees(converted, exports, "keras", family)


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_model_cli_run(converted, exports, family):
    assert_agrees(converted, exports, "cli", family)


@pytest.mark.parametrize("family", FAMILIES)
def test_jax(converted, exports, family):
    assert_agrees(converted, exports, "jax", family)


@pytest.mark.parametrize("family", FAMILIES)
def test_tensorflow_js(converted, exports, family):
    assert_agrees(converted, exports, "tensorflowjs", family)


@pytest.mark.parametrize("family", FAMILIES)
def test_aot_compile_cpu(converted, family):
    written = outputs(converted("aot"), family)
    assert written["o"] > 1000 and written["h"] > 1000


@pytest.mark.parametrize("converter", ["int8", "int8_weights"])
@pytest.mark.parametrize("family", FAMILIES)
def test_eight_bits(converted, exports, converter, family):
    """Nearly the same: 97 choices of a hundred; floats to a tenth of their range."""
    directory = converted(converter)
    if (converter, family) in REFUSED:
        assert REFUSED[converter, family] in (directory / f"{family}.txt").read_text()
        return
    found, wanted = outputs(directory, family), np.load(exports[family]["wanted"])
    same = [
        (found[name] == wanted[name]).mean()
        if wanted[name].dtype.kind == "i"
        else (abs(found[name] - wanted[name]).max() < 0.1 * np.ptp(wanted[name]))
        for name in wanted.files
    ]
    assert (min(same) > 0.97) == (converter != "int8" or family not in NOT_IN_EIGHT_BITS)


@contextlib.contextmanager
def bentoml(python, export):
    """The address of a server of an export, until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PGEST_EXPORT": export, "BENTOML_DO_NOT_TRACK": "True"}
    environment.pop("PYTHONPATH", None)
    command = [python, "-m", "bentoml", "serve", "served_policy:Policy"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    here = pathlib.Path(__file__).parent
    log = pathlib.Path(export).with_suffix(".log")
    with log.open("w") as out:
        server = subprocess.Popen(command, cwd=here, env=environment, stdout=out, stderr=out)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(60)


def post(address, content):
    """The answer to JSON, asked for again until the server is up."""
    ends = time.monotonic() + 120
    body = json.dumps(content).encode()
    while True:
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > ends:
                raise AssertionError(error.read().decode()) from error
        except OSError:
            if time.monotonic() > ends:
                raise
        time.sleep(0.5)


def test_bentoml_serves_over_http(python, exports):
    job = exports["categorical"]
    observations = np.load(job["inputs"])["observation"]
    with bentoml(python, job["export"]) as address:
        actions = post(f"{address}/act", {"observations": observations.tolist()})
    np.testing.assert_array_equal(actions, np.load(job["wanted"])["action"])
