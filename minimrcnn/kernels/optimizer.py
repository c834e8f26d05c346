"""The optimizers' updates, each in one pass: every number is read once and written once.

Twelve million parameters with their gradients and moments are hundreds of megabytes, far more than a cache holds, so an
update costs what its memory traffic costs; written as array expressions, AdamW would go over the memory a dozen times.

Arrays are flat, (n,). The formulas and their sources stand in `minimrcnn.training.optimizer`.

The sum of squares is added in float64 on a CPU. On a GPU it stays in float32: 128 threads add 128 numbers each, then
pair by pair, always the same ones, so that its error is less than 1e-5 of it (at most 136 roundings of one sign, and
most cancel). There it is infinite once a number is beyond 1.8e19.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange
from numba.extending import register_jitable

from minimrcnn.kernels.compiled import compiled
from minimrcnn.kernels.twin import THREADS_PER_BLOCK, Twin, cuda

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


@compiled(parallel=True)
def sgd_cpu(gradient, learning_rate, momentum, weight_decay, velocity, parameter):
    """Update ``velocity`` and ``parameter`` (n,) in place."""
    F = parameter.dtype.type
    learning_rate, momentum, weight_decay = F(learning_rate), F(momentum), F(weight_decay)
    for i in prange(parameter.size):
        velocity[i], parameter[i] = sgd_update(
            gradient[i], velocity[i], parameter[i], learning_rate, momentum, weight_decay
        )


@compiled(parallel=True)
def adamw_cpu(gradient, shrink, step_size, root_scale, epsilon, beta1, rest1, beta2, rest2, mean, square, parameter):
    """Update ``mean``, ``square`` and ``parameter`` (n,) in place."""
    F = parameter.dtype.type
    weights = F(beta1), F(rest1), F(beta2), F(rest2)
    shrink, step_size, root_scale, epsilon = F(shrink), F(step_size), F(root_scale), F(epsilon)
    for i in prange(parameter.size):
        mean[i], square[i], parameter[i] = adamw_update(
            gradient[i], mean[i], square[i], parameter[i], shrink, step_size, root_scale, epsilon, weights
        )


# Additions go eight at a time only where they may change their order; a loop of its own, because that permission does
# not reach into a parallel one. Infinity and NaN keep their meaning.
@compiled(fastmath={"reassoc"})
def sum_of_squares(values):
    total = 0.0
    for i in range(values.size):
        value = np.float64(values[i])  # a float32's square always fits
        total += value * value
    return total


@compiled(parallel=True)
def square_sums_cpu(values, sums):
    """``sums`` (ceil(n / SQUARES_BLOCK),) float64: the sum of squares of each block of ``values`` (n,)."""
    for block in prange(sums.size):
        sums[block] = sum_of_squares(values[block * SQUARES_BLOCK : (block + 1) * SQUARES_BLOCK])


def sgd_cuda(gradient, learning_rate, momentum, weight_decay, velocity, parameter):
    i = cuda.grid(1)
    if i < parameter.size:
        F = parameter.dtype.type
        velocity[i], parameter[i] = sgd_update(
            gradient[i], velocity[i], parameter[i], F(learning_rate), F(momentum), F(weight_decay)
        )


def adamw_cuda(gradient, shrink, step_size, root_scale, epsilon, beta1, rest1, beta2, rest2, mean, square, parameter):
    i = cuda.grid(1)
    if i < parameter.size:
        F = parameter.dtype.type
        weights = F(beta1), F(rest1), F(beta2), F(rest2)
        mean[i], square[i], parameter[i] = adamw_update(
            gradient[i], mean[i], square[i], parameter[i],
            F(shrink), F(step_size), F(root_scale), F(epsilon), weights,
        )  # fmt: skip


def square_sums_cuda(values, sums):
    """One block for each sum: a thread adds every 128th square, then half of the threads what the others have, ..."""
    thread, block = cuda.threadIdx.x, cuda.blockIdx.x
    parts = cuda.shared.array(THREADS_PER_BLOCK, values.dtype)
    total = values.dtype.type(0)
    for i in range(block * SQUARES_BLOCK + thread, min((block + 1) * SQUARES_BLOCK, values.size), THREADS_PER_BLOCK):
        total += values[i] * values[i]
    parts[thread] = total
    cuda.syncthreads()
    half = THREADS_PER_BLOCK // 2
    while half > 0:
        if thread < half:
            parts[thread] += parts[thread + half]
        cuda.syncthreads()
        half //= 2
    if thread == 0:
        sums[block] = parts[0]


# sgd(gradient (n,), learning_rate: float, momentum: float, weight_decay: float, velocity (n,), parameter (n,))
sgd = Twin("sgd", sgd_cpu, sgd_cuda)

# adamw(gradient (n,), shrink, step_size, root_scale, epsilon, beta1, rest1, beta2, rest2: float,
#       mean (n,), square (n,), parameter (n,)).
# rest1 = 1 - beta1, and rest2 alike: the caller subtracts, as in float32 1 - 0.999 is off by 5e-5 of it.
adamw = Twin("adamw", adamw_cpu, adamw_cuda)

# square_sums(values (n,), sums (ceil(n / SQUARES_BLOCK),), float64 on a CPU, the type of values on a GPU)
square_sums = Twin(
    "square_sums", square_sums_cpu, square_sums_cuda, threads=lambda values, sums: sums.size * THREADS_PER_BLOCK
)
