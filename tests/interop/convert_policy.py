"""Run by the converters' Python: gives exports to a converter and asks what came of them.

Arguments: the converter's name, and a JSON file of jobs by family's name: `export`, `fixed` (an
export of a fixed batch), `inputs` (an .npz file) and `results`, where this program writes
`<family>.npz` with the outputs, or `<family>.txt` with the reason why there are none.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile

SIGNATURE = "serving_default"


def onnx(job, inputs):
    """tf2onnx, run by onnxruntime."""
    import onnxruntime

    model = os.path.join(tempfile.mkdtemp(), "policy.onnx")
    _program("tf2onnx.convert", "--saved-model", job["export"], "--output", model)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def litert(job, inputs):
    """TensorFlow's converter to TFLite, run by LiteRT; built-in operators only."""
    return _run_litert(_lite_converter(job).convert(), inputs)


def int8(job, inputs):
    """The same with weights and activations as integers of eight bits."""
    import numpy as np

    def representative():
        for at in range(200):
            yield SIGNATURE, {name: np.asarray(rows[at : at + 1]) for name, rows in inputs.items()}

    return _run_litert(_smaller(job, representative), inputs)


def int8_weights(job, inputs):
    """The same with integers of eight bits for the weights alone."""
    return _run_litert(_smaller(job, None), inputs)


def _smaller(job, representative):
    import tensorflow as tf

    converter = _lite_converter(job)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    return converter.convert()


def openvino(job, inputs):
    """OpenVINO's own reader of a SavedModel."""
    import openvino as ov

    core = ov.Core()
    # Floats of half the width are what it takes where the processor has them.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    model = core.compile_model(ov.convert_model(job["export"]), "CPU", exact)
    request = model.create_infer_request()
    request.infer({_input_name(name, model.inputs): rows for name, rows in inputs.items()})
    return {_plain(out.get_any_name()): request.get_tensor(out).data for out in model.outputs}


def keras(job, inputs):
    """A layer of Keras 3, which gives a signature one tensor by place and others by name."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras as keras3

    dtype = "float64" if any(rows.dtype == "float64" for rows in inputs.values()) else None
    layer = keras3.layers.TFSMLayer(job["export"], call_endpoint=SIGNATURE, dtype=dtype)
    first, *others = inputs.items()
    return _arrays(layer(first[1], **{name.replace("/", "_"): rows for name, rows in others}))


def cli(job, inputs):
    """`saved_model_cli run`, in a shell."""
    import numpy as np

    directory = tempfile.mkdtemp()
    given = []
    for number, (name, rows) in enumerate(inputs.items()):
        np.save(f"{directory}/{number}.npy", rows)
        given.append(f"{name}={directory}/{number}.npy")
    chosen = ["--tag_set", "serve", "--signature_def", SIGNATURE, "--inputs", ";".join(given)]
    outputs = pathlib.Path(directory, "outputs")
    for name in ("action/1", "state"):  # it makes no directory for an output with a slash
        (outputs / name).mkdir(parents=True)
    _saved_model_cli("run", "--dir", job["export"], *chosen, "--outdir", str(outputs))
    written = [file.relative_to(outputs) for file in outputs.rglob("*.npy")]
    return {str(file)[: -len(".npy")]: np.load(outputs / file) for file in written}


def aot(job, inputs):
    """`saved_model_cli aot_compile_cpu`: the bytes of an object file and of its header, not run."""
    prefix = f"{tempfile.mkdtemp()}/policy"
    chosen = ["--tag_set", "serve", "--signature_def_key", SIGNATURE]
    made = ["--output_prefix", prefix, "--cpp_class", "Policy"]
    _saved_model_cli("aot_compile_cpu", "--dir", job["fixed"], *chosen, *made)
    return {kind: os.path.getsize(f"{prefix}.{kind}") for kind in ("o", "h")}


def jax(job, inputs):
    """A function of JAX, by tf2jax."""
    import jax as jax_itself
    import tensorflow as tf
    import tf2jax

    jax_itself.config.update("jax_enable_x64", True)  # else it knows no int64 and no float64
    loaded = tf.saved_model.load(job["fixed"])
    inputs = {name.replace("/", "_"): rows for name, rows in inputs.items()}  # as Python has them
    serve = tf.function(lambda leaves: loaded.signatures[SIGNATURE](**leaves))
    function, parameters = tf2jax.convert(serve, inputs)
    outputs, _ = jax_itself.jit(function)(parameters, inputs)
    return _arrays(outputs)


def tensorflowjs(job, inputs):
    """TensorFlow.js in node, whose processor knows no tanh that oneDNN has put into a product."""
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # read while TensorFlow is imported
    import numpy as np
    from tensorflowjs.converters import tf_saved_model_conversion_v2 as conversion

    directory = tempfile.mkdtemp()
    conversion.convert_tf_saved_model(
        job["export"], directory, signature_def=SIGNATURE, saved_model_tags="serve"
    )
    signature = json.loads(pathlib.Path(directory, "model.json").read_text())["signature"]
    names = {name: port["name"] for name, port in signature["inputs"].items()}
    given = {names[name]: _for_javascript(rows) for name, rows in inputs.items()}
    pathlib.Path(directory, "inputs.json").write_text(json.dumps(given))
    program = pathlib.Path(__file__).with_name("run_tensorflowjs.js")
    done = subprocess.run(
        ["node", str(program), directory, f"{directory}/inputs.json"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "NODE_PATH": f"{sys.prefix}/node_modules"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    outputs = json.loads(done.stdout.splitlines()[-1])
    return {
        name: np.reshape(found["values"], found["shape"])
        .astype("float32" if found["dtype"] == "float32" else "int64")
        for name, found in outputs.items()
    }  # fmt: skip


CONVERTERS = {
    function.__name__: function
    for function in (onnx, litert, int8, int8_weights, openvino, keras, cli, aot, jax, tensorflowjs)
}


def _for_javascript(rows):
    """Rows in JSON; of numbers, TensorFlow.js has float32 and int32."""
    kinds = {"b": "bool", "f": "float32", "i": "int32", "u": "int32"}
    return {"dtype": kinds[rows.dtype.kind], "shape": rows.shape, "values": rows.ravel().tolist()}


def _lite_converter(job):
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(job["export"], signature_keys=[SIGNATURE])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return converter


def _run_litert(model, inputs):
    from ai_edge_litert import interpreter

    runner = interpreter.Interpreter(model_content=model).get_signature_runner(SIGNATURE)
    return runner(**inputs)


_programs = []


def _saved_model_cli(*arguments):
    _program("tensorflow.python.tools.saved_model_cli", *arguments)


def _program(name, *arguments):
    """What `python -m name arguments` does, without importing TensorFlow once more."""
    spec = importlib.util.find_spec(name)
    program = importlib.util.module_from_spec(spec)
    program.__name__ = "__main__"
    # Flags know a module by its id, and a new one that has the id of one that is gone is refused.
    _programs.append(program)
    before = sys.argv, sys.modules["__main__"]
    sys.argv, sys.modules["__main__"] = [name, *arguments], program
    try:
        exec(spec.loader.get_code(name), vars(program))
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"{name} ended with {ended.code}") from ended
    finally:
        sys.argv, sys.modules["__main__"] = before


def _input_name(name, known):
    return next(n for port in known for n in port.get_names() if _plain(n) == name)


def _plain(name):
    return name.split(":")[0].removeprefix("serving_default_")


def _arrays(outputs):
    import numpy as np

    return {name: np.asarray(leaf) for name, leaf in outputs.items()}


def main(converter, jobs_file):
    import numpy as np

    jobs = json.loads(pathlib.Path(jobs_file).read_text())
    for family, job in jobs.items():
        result = os.path.join(job["results"], family)
        try:
            outputs = CONVERTERS[converter](job, dict(np.load(job["inputs"])))
        except Exception as error:  # whatever stands in the way is the result
            pathlib.Path(f"{result}.txt").write_text(f"{type(error).__name__}: {error}")
        else:
            np.savez(f"{result}.npz", **outputs)


if __name__ == "__main__":
    main(*sys.argv[1:])
