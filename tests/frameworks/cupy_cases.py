"""CuPy on a virtual GPU; every result is compared with NumPy's."""
import sys

import cupy
import cupyx
import numpy
from numpy.testing import assert_allclose, assert_array_equal

from program import case, main

RANDOM = numpy.random.default_rng(1)
SCALE = 'extern "C" __global__ void scale(float* a, int n) { int i = blockDim.x * blockIdx.x + threadIdx.x; ' \
        'if (i < n) a[i] *= 3; }'


@case
def elementwise():
    x = numpy.linspace(0.1, 9, 5000, dtype=numpy.float32)
    y = cupy.asarray(x)
    assert_allclose(cupy.asnumpy(cupy.sqrt(y) * 2 + cupy.sin(y) / (y + 1)), numpy.sqrt(x) * 2 + numpy.sin(x) / (x + 1),
                    rtol=1e-5)
    assert_array_equal((cupy.arange(1000) % 7 == 3).get(), numpy.arange(1000) % 7 == 3)


@case
def reduction():
    x = RANDOM.random((123, 77))
    y = cupy.asarray(x)
    assert_allclose(y.sum(0).get(), x.sum(0))
    assert_allclose(y.mean(1).get(), x.mean(1))
    assert y.argmax() == x.argmax() and y.min() == x.min()
    assert_allclose(float(cupy.linalg.norm(y)), numpy.linalg.norm(x))


@case
def kernels_from_expressions():
    squares = cupy.ElementwiseKernel('T x, T y', 'T z', 'z = (x - y) * (x - y)', 'squares')
    norm = cupy.ReductionKernel('T x', 'T y', 'x * x', 'a + b', 'y = sqrt(a)', '0', 'norm')
    x, y = RANDOM.random(1000), RANDOM.random(1000)
    assert_allclose(squares(cupy.asarray(x), cupy.asarray(y)).get(), (x - y) ** 2)
    assert_allclose(float(norm(cupy.asarray(x))), numpy.sqrt((x * x).sum()))


@case
def raw_kernel():
    x = cupy.arange(1000, dtype=cupy.float32)
    cupy.RawKernel(SCALE, 'scale')((8,), (128,), (x, numpy.int32(900)))
    expected = numpy.arange(1000, dtype=numpy.float32)
    expected[:900] *= 3
    assert_array_equal(x.get(), expected)


@case
def raw_module():
    """A template of which two instances are asked for, and a constant that is set from the host."""
    module = cupy.RawModule(code='__constant__ int step; template <typename T> __global__ void add(T* a) '
                                 '{ a[threadIdx.x] += T(step); }', name_expressions=['add<double>', 'add<short>'])
    for kind, name in ((cupy.float64, 'add<double>'), (cupy.int16, 'add<short>')):
        x = cupy.arange(32, dtype=kind)
        add = module.get_function(name)
        cupy.ndarray((1,), cupy.int32, module.get_global('step')).fill(5)
        add((1,), (32,), (x,))
        assert_array_equal(x.get(), numpy.arange(32) + 5)


@case
def fusion():
    @cupy.fuse
    def fused(a, b):
        return cupy.where(a > b, a - b, a * b)

    x, y = RANDOM.random(500), RANDOM.random(500)
    assert_allclose(fused(cupy.asarray(x), cupy.asarray(y)).get(), numpy.where(x > y, x - y, x * y))


@case
def sorting():
    """Thrust, which CuPy's wheel brings compiled."""
    x = RANDOM.random(1000)
    assert_array_equal(cupy.sort(cupy.asarray(x)).get(), numpy.sort(x))
    assert_array_equal(cupy.argsort(cupy.asarray(x)).get(), numpy.argsort(x))
    assert_array_equal(cupy.unique(cupy.asarray(x > 0.5)).get(), [False, True])


@case
def scan():
    x = RANDOM.integers(0, 100, 3000)
    assert_array_equal(cupy.cumsum(cupy.asarray(x)).get(), numpy.cumsum(x))
    assert_array_equal(cupy.nonzero(cupy.asarray(x) > 50)[0].get(), numpy.nonzero(x > 50)[0])


@case
def indexing():
    x, where = RANDOM.random((40, 30)), RANDOM.integers(0, 40, 100)
    y = cupy.asarray(x)
    assert_array_equal(y[cupy.asarray(where), ::3].get(), x[where, ::3])
    total = cupy.zeros(40)
    cupyx.scatter_add(total, cupy.asarray(where), 1.0)
    assert_array_equal(total.get(), numpy.bincount(where, minlength=40))


@case
def random_of_curand():
    """cuRAND's generators on the host side: the same numbers for the same seed, in the right distribution."""
    cupy.random.seed(7)
    first = cupy.random.rand(20000)
    cupy.random.seed(7)
    assert_array_equal(first.get(), cupy.random.rand(20000).get())
    assert abs(float(first.mean()) - 0.5) < 0.01 and abs(float(first.std()) - 12 ** -0.5) < 0.01


@case
def streams_and_events():
    first, second = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)
    done = cupy.cuda.Event()
    with first:
        x = cupy.arange(10000) * 2
        done.record(first)
    second.wait_event(done)
    with second:
        y = x + 1
    second.synchronize()
    assert done.done
    assert_array_equal(y.get(), numpy.arange(10000) * 2 + 1)


@case
def graph():
    stream = cupy.cuda.Stream(non_blocking=True)
    x = cupy.zeros(100)
    x += 1
    cupy.cuda.Device().synchronize()
    with stream:
        stream.begin_capture()
        x += 1
        x *= 2
        graph = stream.end_capture()
        for _ in range(3):
            graph.launch(stream)
    stream.synchronize()
    assert_array_equal(x.get(), numpy.full(100, 22.0))


@case
def pinned_memory():
    source, target = cupyx.empty_pinned(5000), cupyx.zeros_pinned(5000)
    source[:] = RANDOM.random(5000)
    stream = cupy.cuda.Stream(non_blocking=True)
    device = cupy.empty(5000)
    device.set(source, stream=stream)
    with stream:
        device += 1
    device.get(stream=stream, out=target)
    stream.synchronize()
    assert_array_equal(target, source + 1)


@case
def managed_memory():
    with cupy.cuda.using_allocator(cupy.cuda.MemoryPool(cupy.cuda.malloc_managed).malloc):
        x = cupy.arange(1000)
        assert_array_equal((x * x).get(), numpy.arange(1000) ** 2)


@case
def asynchronous_pool():
    with cupy.cuda.using_allocator(cupy.cuda.MemoryAsyncPool().malloc):
        for size in (100, 100000, 1000):
            assert int(cupy.ones(size, dtype=cupy.int64).sum()) == size


@case
def texture():
    kernel = cupy.RawKernel('extern "C" __global__ void read(float* out, cudaTextureObject_t t) '
                            '{ out[threadIdx.x] = tex1Dfetch<float>(t, 31 - threadIdx.x); }', 'read')
    kind = cupy.cuda.texture.ChannelFormatDescriptor(32, 0, 0, 0, cupy.cuda.runtime.cudaChannelFormatKindFloat)
    x, out = cupy.arange(32, dtype=cupy.float32), cupy.zeros(32, dtype=cupy.float32)
    resource = cupy.cuda.texture.ResourceDescriptor(cupy.cuda.runtime.cudaResourceTypeLinear, arr=x, chDesc=kind,
                                                    sizeInBytes=x.nbytes)
    reader = cupy.cuda.texture.TextureObject(resource, cupy.cuda.texture.TextureDescriptor())
    kernel((1,), (32,), (out, reader))
    assert_array_equal(out.get(), x.get()[::-1])


@case
def wild_address():
    """A kernel that writes where nothing is: the error comes at the next wait, and again for what follows."""
    kernel = cupy.RawKernel('extern "C" __global__ void wild(int* p) { p[threadIdx.x] = 1; }', 'wild')
    kernel((1,), (32,), (numpy.uint64(0x10),))
    try:
        cupy.cuda.Device().synchronize()
    except cupy.cuda.runtime.CUDARuntimeError:
        cupy.arange(10).get()
    raise AssertionError('no error came')


@case
def machine_code():
    """What CuPy does unless it is told to keep PTX: NVRTC makes machine code."""
    elementwise()


if __name__ == '__main__':
    sys.exit(main())
