"""From a model_fn to compiled programs; the only home of `tf.function`."""
