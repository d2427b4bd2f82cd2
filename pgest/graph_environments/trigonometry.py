"""Sine and cosine that XLA on CPU can vectorise.

XLA calls the C library once per element for `tf.sin` and `tf.cos`; in a step of a classic control
environment that is most of the time. Here both come from one range reduction and two polynomials:
multiplications, additions and selections only.
"""

import math

import tensorflow as tf

# Taylor coefficients; |x| <= pi/4 leaves an error below 1e-16 (the next terms: (pi/4)**17 / 17! and
# (pi/4)**18 / 18!).
_SINE = tuple((-1.0) ** k / math.factorial(2 * k + 1) for k in range(8))
_COSINE = tuple((-1.0) ** k / math.factorial(2 * k) for k in range(9))
# pi/2 as a sum whose first terms have few bits, so that small multiples of them are exact
# (Cody and Waite, "Software Manual for the Elementary Functions", 1980).
_HALF_PI = {
    tf.float32: (1.5703125, 4.837512969970703e-04, 7.54978995489188e-08),
    tf.float64: (1.57079632673412561417e00, 6.07710050650619224932e-11),
}


def sine_and_cosine(angle: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes the sine and the cosine of angles.

    Args:
        angle: float32 or float64, any shape, in radians, |angle| below 10,000.

    Returns:
        Sine and cosine in the dtype and shape of `angle`, right to 2e-7 (float32, |angle| < 100)
        or 1e-15 (float64, |angle| < 100).

    Example:
        >>> import tensorflow as tf
        >>> from pgest.graph_environments import trigonometry
        >>> sine, cosine = trigonometry.sine_and_cosine(tf.constant([0.0, 1.0], tf.float64))
        >>> [round(float(number), 6) for number in (*sine, *cosine)]
        [0.0, 0.841471, 1.0, 0.540302]
    """
    turns = tf.round(angle * (2.0 / math.pi))
    for part in _HALF_PI[angle.dtype]:
        angle -= turns * part
    sine, cosine = small_sine_and_cosine(angle)
    quarter = tf.cast(turns, tf.int32)
    swap = tf.equal(tf.bitwise.bitwise_and(quarter, 1), 1)
    sine, cosine = tf.where(swap, cosine, sine), tf.where(swap, sine, cosine)
    sine = tf.where(tf.equal(tf.bitwise.bitwise_and(quarter, 2), 2), -sine, sine)
    cosine = tf.where(tf.equal(tf.bitwise.bitwise_and(quarter + 1, 2), 2), -cosine, cosine)
    return computed_once(sine), computed_once(cosine)


def small_sine_and_cosine(angle: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes the sine and the cosine of angles known to lie within ±pi/4.

    Args:
        angle: float32 or float64, any shape, in radians.

    Returns:
        Sine and cosine, as exact as the dtype within ±pi/4 and to 1e-8 within ±pi/2.
    """
    square = angle * angle
    return angle * _polynomial(square, _SINE), _polynomial(square, _COSINE)


def computed_once(numbers: tf.Tensor) -> tf.Tensor:
    """Gives `numbers`, bit for bit, in a form that XLA computes once however often it is used.

    XLA repeats what it holds for cheap (sums, products, selections: a whole polynomial) in the
    kernel of every user, and once more for every column of a `tf.stack`. A division it holds for
    dear, so it keeps the quotient. The divisor here is always one, which only the machine-code
    compiler finds out. Without it a loop over 2048 MountainCars takes half as long again.

    Args:
        numbers: float tensor of any shape.
    """
    return numbers / tf.maximum(tf.ones([], numbers.dtype), tf.sign(numbers))


def _polynomial(x: tf.Tensor, coefficients: tuple[float, ...]) -> tf.Tensor:
    value = tf.constant(coefficients[-1], x.dtype)
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value
