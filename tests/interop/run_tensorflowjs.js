// Run by node, with TensorFlow.js: a converted export and its inputs in, outputs to standard output.
//
// Arguments: the converter's directory, and a JSON file of inputs by name: dtype, shape, values.

const fs = require("fs");
const path = require("path");
const tf = require("@tensorflow/tfjs");

async function main(directory, inputsFile) {
  const model = JSON.parse(fs.readFileSync(path.join(directory, "model.json")));
  const parts = model.weightsManifest.flatMap((group) => group.paths);
  const bytes = Buffer.concat(parts.map((part) => fs.readFileSync(path.join(directory, part))));
  const weights = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  const graph = await tf.loadGraphModel(
    tf.io.fromMemory({
      ...model,
      weightSpecs: model.weightsManifest.flatMap((group) => group.weights),
      weightData: weights,
    })
  );
  const given = JSON.parse(fs.readFileSync(inputsFile));
  const inputs = {};
  for (const [name, { dtype, shape, values }] of Object.entries(given)) {
    inputs[name] = tf.tensor(values, shape, dtype);
  }
  const names = Object.keys(model.signature.outputs);
  const outputs = await graph.executeAsync(
    inputs,
    names.map((name) => model.signature.outputs[name].name)
  );
  const found = {};
  for (const [at, tensor] of [outputs].flat().entries()) {
    const values = Array.from(tensor.dataSync());
    found[names[at]] = { dtype: tensor.dtype, shape: tensor.shape, values };
  }
  console.log(JSON.stringify(found));
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exit(1);
});
