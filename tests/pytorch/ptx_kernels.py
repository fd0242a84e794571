"""CUDA kernels compiled to PTX by NVRTC while PyTorch runs, and launched on PyTorch's current stream."""
import ctypes
import functools
import struct
import threading

import torch
from torch.cuda import _utils

DIMENSIONS = 8  # of a tensor, at most
THREADS = 128

TYPES = {
    torch.float32: 'float', torch.float64: 'double', torch.int64: 'long long', torch.int32: 'int',
    torch.int16: 'short', torch.int8: 'signed char', torch.uint8: 'unsigned char', torch.bool: 'bool',
    torch.float16: 'Half', torch.bfloat16: 'Brain',
}

# Half precision is computed in float: the two types only convert.
PRELUDE = '''
struct Half {
  unsigned short bits;
  Half() = default;
  __device__ Half(float v) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(v)); }
  __device__ operator float() const { float v; asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(bits)); return v; }
};
struct Brain {
  unsigned short bits;
  Brain() = default;
  __device__ Brain(float v) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(v)); }
  __device__ operator float() const { return __uint_as_float((unsigned)bits << 16); }
};
struct Shape { long long count, dimensions, size[8]; };
struct Strides { long long of[8]; };
__device__ long long place(long long index, const Shape& shape, const Strides& strides) {
  if (shape.dimensions == 0) return index;
  long long at = 0;
  for (int d = (int)shape.dimensions - 1; d >= 0; --d) {
    at += index % shape.size[d] * strides.of[d];
    index /= shape.size[d];
  }
  return at;
}
'''


def _ptx(source):
    nvrtc = _utils._get_gpu_rtc_library()

    def check(status):
        if status != 0:
            raise RuntimeError(f'NVRTC: error {status}')

    program = ctypes.c_void_p()
    check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b'kernel.cu', 0, None, None))
    options = [b'--gpu-architecture=compute_80', b'--std=c++17']
    status = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    if status != 0:
        size = ctypes.c_size_t()
        check(nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size)))
        log = ctypes.create_string_buffer(size.value)
        check(nvrtc.nvrtcGetProgramLog(program, log))
        raise RuntimeError(f'{log.value.decode()}\n{source}')
    size = ctypes.c_size_t()
    check(nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    check(nvrtc.nvrtcGetPTX(program, text))
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return text.raw


_thread = threading.local()


def _enter_context(device):
    """Autograd's threads call the driver here before the runtime gave them a context."""
    if getattr(_thread, 'device', None) == device:
        return
    driver, context = _utils._get_gpu_runtime_library(), ctypes.c_void_p()
    _utils._check_cuda(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    _utils._check_cuda(driver.cuCtxSetCurrent(context))
    _thread.device = device


@functools.cache
def kernel(source):
    """The function `k` of the source, in the current device's context."""
    torch.cuda.init()
    driver = _utils._get_gpu_runtime_library()
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    _utils._check_cuda(driver.cuModuleLoadData(ctypes.byref(module), _ptx(PRELUDE + source)))
    _utils._check_cuda(driver.cuModuleGetFunction(ctypes.byref(function), module, b'k'))
    return function


def launch(source, blocks, arguments, threads=THREADS):
    """Arguments: tensors, ints (long long), floats (double), and bytes for structures."""
    if blocks == 0:
        return
    values = []
    for argument in arguments:
        if isinstance(argument, torch.Tensor):
            values.append(ctypes.c_void_p(argument.data_ptr()))
        elif isinstance(argument, bytes):
            values.append(ctypes.create_string_buffer(argument, len(argument)))
        elif isinstance(argument, float):
            values.append(ctypes.c_double(argument))
        else:
            values.append(ctypes.c_longlong(int(argument)))
    pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(value) for value in values])
    _enter_context(torch.cuda.current_device())
    stream = torch.cuda.current_stream()._as_parameter_
    driver = _utils._get_gpu_runtime_library()
    _utils._check_cuda(driver.cuLaunchKernel(kernel(source), blocks, 1, 1, threads, 1, 1, 0, stream, pointers, None))


def shape_of(size):
    return struct.pack(f'{DIMENSIONS + 2}q', functools.reduce(int.__mul__, size, 1), len(size),
                       *size, *[1] * (DIMENSIONS - len(size)))


def strides_of(strides):
    return struct.pack(f'{DIMENSIONS}q', *strides, *[0] * (DIMENSIONS - len(strides)))


def views(tensors, size):
    """Shape and strides of tensors that were expanded to one size; nothing to compute where all are dense."""
    if all(tensor.is_contiguous() for tensor in tensors):
        count = functools.reduce(int.__mul__, size, 1)
        return struct.pack(f'{DIMENSIONS + 2}q', count, 0, *[1] * DIMENSIONS), [strides_of(())] * len(tensors)
    return shape_of(size), [strides_of(tensor.stride()) for tensor in tensors]


def elementwise(expression, out, inputs, compute, scalars=()):
    """out = expression, where a, b, c ... are the inputs (tensors of CUDA, or CPU tensors of one element and numbers,
    which go as values) in the type `compute`, s0, s1 ... the scalars, and i the index in the output."""
    names = 'abcdefg'
    size = out.shape
    parameters, body, arguments, tensors = [], [], [], []
    kind = TYPES[compute]
    kind = 'float' if kind in ('Half', 'Brain') else kind
    for name, value in zip(names, inputs):
        if isinstance(value, torch.Tensor) and value.is_cuda:
            tensors.append(value.expand(size))
            parameters.append(f'const {TYPES[value.dtype]}* p{name}, Strides t{name}')
            body.append(f'const {kind} {name} = ({kind})p{name}[place(i, shape, t{name})];')
        else:
            number = value.item() if isinstance(value, torch.Tensor) else value
            exact = compute in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
            parameters.append(f'{"long long" if exact else "double"} p{name}')
            body.append(f'const {kind} {name} = ({kind})p{name};')
            arguments.append(int(number) if exact else float(number))
            continue
        arguments.append(value)
    for number, value in enumerate(scalars):
        parameters.append(f'{"double" if isinstance(value, float) else "long long"} s{number}')
    shape, strides = views([out, *tensors], size)
    packed, following = [shape, out, strides[0]], iter(strides[1:])
    for argument in arguments:
        packed.append(argument)
        if isinstance(argument, torch.Tensor):
            packed.append(next(following))
    result = TYPES[out.dtype]
    first = f'({result})' if result not in ('Half', 'Brain') else f'({result})(float)'
    source = f'''extern "C" __global__ void k({", ".join([f"Shape shape, {result}* out, Strides to", *parameters])}) {{
      const long long step = (long long)gridDim.x * blockDim.x;
      for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < shape.count; i += step) {{
        {" ".join(body)}
        out[place(i, shape, to)] = {first}({expression});
      }}
    }}'''
    launch(source, min((out.numel() + THREADS - 1) // THREADS, 4096), [*packed, *scalars])
    return out


def reduce(combine, start, out, tensor, dims, compute, value='a', finish='r'):
    """out = the combination of r and x over `dims`: a warp for each element of the output. `value` is computed from
    the element a at place i of its group, `finish` from r and n, the number of elements."""
    kept = [d for d in range(tensor.dim()) if d not in dims]
    view = tensor.permute(kept + list(dims))
    outer, inner = view.shape[:len(kept)], view.shape[len(kept):]
    kind = TYPES[compute]
    kind = 'float' if kind in ('Half', 'Brain') else kind
    result = TYPES[out.dtype]
    cast = f'({result})' if result not in ('Half', 'Brain') else f'({result})(float)'
    exchanged = 'r' if kind not in ('bool', 'short', 'signed char', 'unsigned char') else '(int)r'
    source = f'''extern "C" __global__ void k({result}* out, const {TYPES[tensor.dtype]}* in, Shape outer, Strides ko,
                                             Shape inner, Strides ki) {{
      const long long g = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / 32;
      if (g >= outer.count) return;
      const long long base = place(g, outer, ko), n = inner.count;
      {kind} r = ({kind})({start});
      for (long long i = threadIdx.x % 32; i < n; i += 32) {{
        const {kind} a = ({kind})in[base + place(i, inner, ki)];
        const {kind} x = ({kind})({value});
        r = {combine};
      }}
      for (int d = 16; d > 0; d /= 2) {{
        const {kind} x = ({kind})__shfl_xor_sync(~0u, {exchanged}, d);
        r = {combine};
      }}
      if (threadIdx.x % 32 == 0) out[g] = {cast}({finish});
    }}'''
    groups = out.numel()
    launch(source, (groups * 32 + THREADS - 1) // THREADS,
           [out, tensor, shape_of(outer) if outer else shape_of(()), strides_of(view.stride()[:len(kept)]),
            shape_of(inner), strides_of(view.stride()[len(kept):])])
    return out
