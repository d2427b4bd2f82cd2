"""Converts an exported policy to TFLite and plays with it; needs tensorflow and gymnasium only.

    python examples/export_policy.py --model-dir runs/exported
    python examples/tflite_policy.py runs/exported/export --episodes 5

On a small device ai-edge-litert takes the place of tensorflow: the file is the same.
"""

import argparse
import os

import gymnasium
import numpy as np
import tensorflow as tf

SIGNATURES = ("serving_default", "sample")


def convert(path):
    """The bytes of a TFLite model with built-in operators only."""
    converter = tf.lite.TFLiteConverter.from_saved_model(path, signature_keys=list(SIGNATURES))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return converter.convert()


def largest_difference(path, interpreter, generator):
    """Between what TensorFlow and TFLite make of the same inputs, over both signatures."""
    policy = tf.saved_model.load(path)
    largest = 0.0
    for name in SIGNATURES:
        wanted, found = policy.signatures[name], interpreter.get_signature_runner(name)
        shapes = {key: spec.shape for key, spec in wanted.structured_input_signature[1].items()}
        for _ in range(20):
            # Noise is uniform in [0, 1), which does for an observation too.
            inputs = {
                key: generator.random([1, *shape[1:]], np.float32) for key, shape in shapes.items()
            }
            outputs = found(**inputs)
            for key, value in wanted(**{k: tf.constant(v) for k, v in inputs.items()}).items():
                largest = max(largest, np.max(np.abs(value.numpy() - outputs[key])))
    return largest


def main():
    """Converts, compares, plays."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", help="what agent.export_saved_model was given")
    parser.add_argument("--episodes", type=int, default=5)
    parser.add_argument("--output", default="policy.tflite")
    arguments = parser.parse_args()
    newest = max((name for name in os.listdir(arguments.directory) if name.isdigit()), key=int)
    path = os.path.join(arguments.directory, newest)

    model = convert(path)
    with open(arguments.output, "wb") as file:
        file.write(model)
    print(f"{arguments.output}: {len(model):,} bytes")

    generator = np.random.default_rng(0)
    interpreter = tf.lite.Interpreter(model_content=model)
    print(f"Largest difference: {largest_difference(path, interpreter, generator):.1e}")

    act = interpreter.get_signature_runner("sample")
    width = act.get_input_details()["noise"]["shape"][1]
    env = gymnasium.make("CartPole-v1")
    for episode in range(arguments.episodes):
        observation, _ = env.reset(seed=1000 + episode)
        total, ended = 0.0, False
        while not ended:
            # The file draws nothing by itself: what comes from this generator is all its chance.
            noise = generator.random([1, width], np.float32)
            action = act(observation=observation[None], noise=noise)["action"]
            observation, reward, terminated, truncated, _ = env.step(int(action[0]))
            total += float(reward)
            ended = terminated or truncated
        print(f"Episode {episode + 1}: return {total:.0f}")


if __name__ == "__main__":
    main()
