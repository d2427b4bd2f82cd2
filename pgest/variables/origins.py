"""Whose code makes a variable: told by the calls under way, since a name alone does not tell.

A Keras optimizer makes its step count and its settings as variables, and other libraries make
variables that cannot be shared by name.
"""

from __future__ import annotations

import enum
import sys
import types

_ROOM = __name__.rpartition(".")[0]
_PACKAGE = __name__.partition(".")[0]
_OPTIMIZERS = "tf_keras.src.optimizers"
# The functions of a Keras optimizer, of both generations, that make these variables.
_STEP_MAKERS = ("_create_iteration_variable", "iterations")
_SETTING_MAKERS = ("_build_learning_rate", "_compute_current_learning_rate", "_create_hypers")
_V1_TRAINING = "tensorflow.python.training."
_V1_OPTIMIZERS = frozenset(
    "adadelta adagrad adagrad_da adam ftrl gradient_descent momentum optimizer proximal_adagrad "
    "proximal_gradient_descent rmsprop slot_creator".split()
)


class Origin(enum.Enum):
    """What a variable is for.

    * `MODEL`: a weight or a statistic: shared by name and saved.
    * `OPTIMIZER_SLOT`: what an optimizer remembers of a weight: shared by name and saved.
    * `OPTIMIZER_STEP`: an optimizer's own step count, which `minimize` replaces by `global_step`.
    * `OPTIMIZER_SETTING`: a learning rate or the like: what the caller passes now, so it must not
      come back from a checkpoint.
    """

    MODEL = "model"
    OPTIMIZER_SLOT = "optimizer slot"
    OPTIMIZER_STEP = "optimizer step"
    OPTIMIZER_SETTING = "optimizer setting"


def origin_of(name: str) -> Origin:
    """Returns whose code is making the variable `name`, further up in the calls under way.

    Raises:
      TypeError: it is Keras 3's or a tf.compat.v1.train optimizer's; the message says what to use.
    """
    frame: types.FrameType | None = sys._getframe(1)
    module = _module(frame)
    while frame is not None and module.startswith(f"{_ROOM}."):
        frame = frame.f_back
        module = _module(frame)
    origin = Origin.MODEL
    # The makers stand between the store and the model_fn, which is called from this package.
    while frame is not None and not module.startswith(f"{_PACKAGE}."):
        if module.startswith(_OPTIMIZERS):
            origin = Origin.OPTIMIZER_SLOT
            if frame.f_code.co_name in _STEP_MAKERS:
                return Origin.OPTIMIZER_STEP
            if frame.f_code.co_name in _SETTING_MAKERS:
                return Origin.OPTIMIZER_SETTING
        elif module.startswith("keras.src"):
            raise TypeError(
                f"The variable {name!r} is made by Keras 3 (`import keras`, or `tf.keras`), whose "
                "layers, metrics and optimizers pgest cannot share by name: `import tf_keras` "
                "and use the same class of tf_keras instead."
            )
        elif module.startswith(_V1_TRAINING) and module.rpartition(".")[2] in _V1_OPTIMIZERS:
            raise TypeError(
                f"The variable {name!r} is made by an optimizer of tf.compat.v1.train: use "
                "pgest.minimize(loss, tf_keras.optimizers.Adam(...)) instead."
            )
        frame = frame.f_back
        module = _module(frame)
    return origin


def _module(frame: types.FrameType | None) -> str:
    return "" if frame is None else frame.f_globals.get("__name__") or ""
