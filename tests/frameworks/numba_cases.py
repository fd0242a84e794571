"""Numba's CUDA target on a virtual GPU; every result is compared with NumPy's."""
import math
import sys
import warnings

import numpy
from numba import cuda, float32
from numba.cuda.random import create_xoroshiro128p_states, xoroshiro128p_uniform_float32
from numpy.testing import assert_allclose, assert_array_equal

from program import case, main

warnings.filterwarnings('ignore', module='numba')
RANDOM = numpy.random.default_rng(1)


@case
def elementwise():
    @cuda.jit
    def add_root(a, b):
        i = cuda.grid(1)
        if i < a.size:
            a[i] += math.sqrt(b[i]) + math.exp(-b[i])

    a, b = RANDOM.random(1000), RANDOM.random(1000)
    got = a.copy()
    add_root[8, 128](got, b)
    assert_allclose(got, a + numpy.sqrt(b) + numpy.exp(-b))


@case
def matrix_product_in_shared_memory():
    side = 16

    @cuda.jit
    def product(a, b, c):
        left, right = cuda.shared.array((side, side), float32), cuda.shared.array((side, side), float32)
        x, y = cuda.grid(2)
        column, row = cuda.threadIdx.x, cuda.threadIdx.y
        total = float32(0)
        for tile in range(a.shape[1] // side):
            left[row, column] = a[y, tile * side + column]
            right[row, column] = b[tile * side + row, x]
            cuda.syncthreads()
            for k in range(side):
                total += left[row, k] * right[k, column]
            cuda.syncthreads()
        c[y, x] = total

    a, b = RANDOM.random((48, 64), dtype=numpy.float32), RANDOM.random((64, 32), dtype=numpy.float32)
    c = numpy.zeros((48, 32), numpy.float32)
    product[(2, 3), (side, side)](a, b, c)
    assert_allclose(c, a @ b, rtol=1e-5)


@case
def atomics():
    @cuda.jit
    def histogram(counts, largest, values):
        i = cuda.grid(1)
        cuda.atomic.add(counts, values[i] % 8, 1)
        cuda.atomic.max(largest, 0, values[i])

    values = RANDOM.integers(0, 1000, 2048).astype(numpy.int32)
    counts, largest = numpy.zeros(8, numpy.int32), numpy.zeros(1, numpy.int32)
    histogram[16, 128](counts, largest, values)
    assert_array_equal(counts, numpy.bincount(values % 8, minlength=8))
    assert largest[0] == values.max()


@case
def warp_shuffle():
    @cuda.jit
    def sums(out, values):
        value = values[cuda.grid(1)]
        for distance in (16, 8, 4, 2, 1):
            value += cuda.shfl_down_sync(0xffffffff, value, distance)
        if cuda.laneid == 0:
            out[cuda.grid(1) // 32] = value

    values, out = RANDOM.integers(0, 100, 256), numpy.zeros(8, numpy.int64)
    sums[2, 128](out, values)
    assert_array_equal(out, values.reshape(8, 32).sum(1))


@case
def reduction():
    values = RANDOM.random(5000)

    @cuda.reduce
    def total(a, b):
        return a + b

    assert_allclose(total(values), values.sum())


@case
def vectorized():
    from numba.cuda import vectorize

    @vectorize(['float64(float64, float64)'], target='cuda')
    def hypotenuse(a, b):
        return math.sqrt(a * a + b * b)

    a, b = RANDOM.random(1000), RANDOM.random(1000)
    assert_allclose(hypotenuse(a, b), numpy.hypot(a, b))


@case
def device_functions_and_local_memory():
    @cuda.jit(device=True)
    def polynomial(x, factors):
        value = 0.0
        for factor in factors:
            value = value * x + factor
        return value

    @cuda.jit
    def evaluate(out, x):
        factors = cuda.local.array(3, numpy.float64)
        for k in range(3):
            factors[k] = k + 1
        i = cuda.grid(1)
        out[i] = polynomial(x[i], factors)

    x, out = RANDOM.random(256), numpy.zeros(256)
    evaluate[2, 128](out, x)
    assert_allclose(out, (1 * x + 2) * x + 3)


@case
def random_numbers():
    @cuda.jit
    def pi(states, inside):
        i = cuda.grid(1)
        count = 0
        for _ in range(50):
            x = xoroshiro128p_uniform_float32(states, i)
            y = xoroshiro128p_uniform_float32(states, i)
            if x * x + y * y <= 1:
                count += 1
        inside[i] = count

    inside = numpy.zeros(1024, numpy.int64)
    pi[8, 128](create_xoroshiro128p_states(1024, seed=1), inside)
    assert abs(4 * inside.sum() / (1024 * 50) - math.pi) < 0.05


@case
def grid_synchronisation():
    @cuda.jit
    def rows(a):
        column, grid = cuda.grid(1), cuda.cg.this_grid()
        for row in range(1, a.shape[0]):
            a[row, column] = a[row - 1, a.shape[1] - column - 1] + 1
            grid.sync()

    a = numpy.zeros((20, 256), numpy.int32)
    rows[4, 64](a)
    assert_array_equal(a, numpy.repeat(numpy.arange(20)[:, None], 256, 1))


@case
def streams_and_pinned_memory():
    @cuda.jit
    def increment(a):
        i = cuda.grid(1)
        a[i] += 1

    stream = cuda.stream()
    host = cuda.pinned_array(1024, numpy.float32)
    host[:] = numpy.arange(1024)
    device = cuda.to_device(host, stream=stream)
    increment[8, 128, stream](device)
    device.copy_to_host(host, stream=stream)
    stream.synchronize()
    assert_array_equal(host, numpy.arange(1024) + 1)


@case
def mapped_memory():
    @cuda.jit
    def double(a):
        i = cuda.grid(1)
        a[i] *= 2

    a = cuda.mapped_array(256, numpy.int32)
    a[:] = numpy.arange(256)
    double[2, 128](a)
    cuda.synchronize()
    assert_array_equal(a, 2 * numpy.arange(256))


@case
def errors_in_kernels():
    """An exception that a kernel raises comes out of the launch."""
    @cuda.jit(debug=True, opt=False)
    def divide(a, b):
        a[cuda.grid(1)] //= b

    divide[1, 32](numpy.ones(32, numpy.int32), 0)


if __name__ == '__main__':
    sys.exit(main())
