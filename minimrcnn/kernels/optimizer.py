"""The optimizers' updates, each in one pass: every number is read once and written once.

Twelve million parameters with their gradients and moments are hundreds of megabytes, far more than a cache holds, so an
update costs what its memory traffic costs; written as array expressions, AdamW would go over the memory a dozen times.

Arrays are flat, (n,). The formulas and their sources stand in `minimrcnn.training.optimizer`.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange
from numba.extending import register_jitable

from minimrcnn.kernels.twin import Twin

SQUARES_BLOCK = 1 << 14  # numbers whose squares make one partial sum: the result does not depend on the thread count


@register_jitable
def sgd_update(gradient, velocity, parameter, learning_rate, momentum, weight_decay):
    """One number's new velocity and value."""
    velocity = momentum * velocity + (gradient + weight_decay * parameter)
    return velocity, parameter - learning_rate * velocity


@register_jitable
def adamw_update(gradient, mean, square, parameter, shrink, step_size, root_scale, epsilon, weights):
    """One number's new moments and value; ``step_size`` and ``root_scale`` hold the bias corrections.

    ``weights`` are those of the old mean, the gradient, the old mean square, the squared gradient.
    """
    mean = weights[0] * mean + weights[1] * gradient
    square = weights[2] * square + weights[3] * gradient * gradient
    return mean, square, shrink * parameter - step_size * mean / (root_scale * math.sqrt(square) + epsilon)


@njit(parallel=True, cache=True, error_model="numpy")
def sgd_cpu(gradient, learning_rate, momentum, weight_decay, velocity, parameter):
    """Update ``velocity`` and ``parameter`` (n,) in place."""
    F = parameter.dtype.type
    learning_rate, momentum, weight_decay = F(learning_rate), F(momentum), F(weight_decay)
    for i in prange(parameter.size):
        velocity[i], parameter[i] = sgd_update(
            gradient[i], velocity[i], parameter[i], learning_rate, momentum, weight_decay
        )


@njit(parallel=True, cache=True, error_model="numpy")
def adamw_cpu(gradient, shrink, step_size, root_scale, epsilon, beta1, beta2, mean, square, parameter):
    """Update ``mean``, ``square`` and ``parameter`` (n,) in place."""
    F = parameter.dtype.type
    weights = F(beta1), F(1.0 - beta1), F(beta2), F(1.0 - beta2)
    shrink, step_size, root_scale, epsilon = F(shrink), F(step_size), F(root_scale), F(epsilon)
    for i in prange(parameter.size):
        mean[i], square[i], parameter[i] = adamw_update(
            gradient[i], mean[i], square[i], parameter[i], shrink, step_size, root_scale, epsilon, weights
        )


# Additions go eight at a time only where they may change their order; a loop of its own, because that permission does
# not reach into a parallel one. Infinity and NaN keep their meaning.
@njit(cache=True, fastmath={"reassoc"}, error_model="numpy")
def sum_of_squares(values):
    total = 0.0
    for i in range(values.size):
        value = np.float64(values[i])  # a float32's square always fits
        total += value * value
    return total


@njit(parallel=True, cache=True, error_model="numpy")
def square_sums_cpu(values, sums):
    """``sums`` (ceil(n / SQUARES_BLOCK),) float64: the sum of squares of each block of ``values`` (n,)."""
    for block in prange(sums.size):
        sums[block] = sum_of_squares(values[block * SQUARES_BLOCK : (block + 1) * SQUARES_BLOCK])


sgd = Twin("sgd", sgd_cpu)
adamw = Twin("adamw", adamw_cpu)
square_sums = Twin("square_sums", square_sums_cpu)
