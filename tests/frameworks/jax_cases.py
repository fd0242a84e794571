"""JAX on a virtual GPU; every result is compared with NumPy's or JAX's own on the CPU."""
import sys

import jax
import jax.numpy as jnp
import numpy
from jax._src import hardware_utils
from numpy.testing import assert_allclose, assert_array_equal

from program import case, main

# JAX looks for /dev/nvidia0 and takes no GPU when it is not there. A program that runs under Tidepool has none.
hardware_utils.has_visible_nvidia_gpu = lambda: True
jax.config.update('jax_default_matmul_precision', 'highest')
RANDOM = numpy.random.default_rng(1)


def random(*shape):
    return RANDOM.random(shape, dtype=numpy.float32)


def same_on_cpu(function, *arguments, tolerance=1e-4):
    got = jax.jit(function)(*arguments)
    assert all('cuda' in str(device).lower() for part in jax.tree.leaves(got) for device in part.devices())
    with jax.default_device(jax.devices('cpu')[0]):
        expected = jax.jit(function)(*arguments)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=tolerance, atol=tolerance), got, expected)


@case
def devices():
    device, = jax.devices('cuda')
    assert device.platform == 'gpu', device
    x = random(100, 30)
    assert_array_equal(jax.device_put(x, device), x)


@case
def elementwise():
    x = random(1000)
    assert_allclose(jnp.sin(x) * 2 + jnp.exp(-x), numpy.sin(x) * 2 + numpy.exp(-x), rtol=1e-5)


@case
def reduction():
    x = random(123, 77)
    same_on_cpu(lambda x: (x.sum(0), x.max(1), jnp.argmin(x), jnp.cumsum(x, 1)), x)


@case
def matrix_product():
    x = random(64, 33)
    same_on_cpu(lambda x: x @ x.T, x)


@case
def gradient():
    def loss(weights, x):
        hidden = jnp.tanh(x @ weights[0])
        return jnp.mean(jax.nn.softmax(hidden @ weights[1]) ** 2)

    same_on_cpu(jax.value_and_grad(loss), (random(8, 16), random(16, 4)), random(32, 8))


@case
def loop_and_condition():
    def collatz(n):
        step = lambda state: (jnp.where(state[0] % 2 == 0, state[0] // 2, 3 * state[0] + 1), state[1] + 1)  # noqa: E731
        return jax.lax.while_loop(lambda state: state[0] != 1, step, (n, 0))[1]

    assert int(jax.jit(collatz)(27)) == 111
    same_on_cpu(lambda x: jax.lax.scan(lambda a, b: (a * 0.5 + b, a), jnp.zeros(4), x), random(20, 4))


@case
def random_numbers():
    same_on_cpu(lambda key: (jax.random.normal(key, (100,)), jax.random.permutation(key, 50)), jax.random.key(3))


@case
def sorting():
    x = random(500)
    same_on_cpu(lambda x: (jnp.sort(x), jnp.argsort(x)), x, tolerance=0)


@case
def convolution():
    same_on_cpu(lambda x, w: jax.lax.conv(x, w, (1, 1), 'SAME'), random(2, 3, 12, 12), random(4, 3, 3, 3))


@case
def linear_algebra():
    x = random(12, 12)
    same_on_cpu(lambda x: jnp.linalg.solve(x @ x.T + jnp.eye(12), x), x, tolerance=1e-3)


@case
def machine_code():
    elementwise()


if __name__ == '__main__':
    sys.exit(main())
