"""Programs of CUDA's runtime of a given version (FRAMEWORKS_CUDART names the library), the way nvcc's output uses it:
PTX of that time is registered as a fat binary and launched by the address of a host function."""
import ctypes
import os
import struct
import sys
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_size_t, c_uint, c_void_p

from program import case, library, main

# libcudart -> what its cudaRuntimeGetVersion says, the version of PTX that its nvcc wrote
RUNTIMES = {'libcudart.so.11.0': (11080, '7.8'), 'libcudart.so.12': (12090, '8.8'), 'libcudart.so.13': (13050, '9.0')}
NAME = os.environ['FRAMEWORKS_CUDART']
VERSION, PTX_VERSION = RUNTIMES[NAME]
TO_DEVICE, TO_HOST = 1, 2
PTX = '''
.version %s
.target sm_52
.address_size 64
.global .align 4 .f32 offset;
.visible .entry scale(.param .u64 values, .param .f32 factor, .param .u32 count)
{
  .reg .pred %%p<2>; .reg .b32 %%r<6>; .reg .f32 %%f<5>; .reg .b64 %%rd<5>;
  ld.param.u64 %%rd1, [values];
  ld.param.f32 %%f1, [factor];
  ld.param.u32 %%r1, [count];
  mov.u32 %%r2, %%ctaid.x;
  mov.u32 %%r3, %%ntid.x;
  mov.u32 %%r4, %%tid.x;
  mad.lo.s32 %%r5, %%r2, %%r3, %%r4;
  setp.ge.u32 %%p1, %%r5, %%r1;
  @%%p1 bra END;
  cvta.to.global.u64 %%rd2, %%rd1;
  mul.wide.u32 %%rd3, %%r5, 4;
  add.s64 %%rd4, %%rd2, %%rd3;
  ld.global.f32 %%f2, [%%rd4];
  ld.global.f32 %%f3, [offset];
  fma.rn.f32 %%f4, %%f2, %%f1, %%f3;
  st.global.f32 [%%rd4], %%f4;
END:
  ret;
}
'''


class Dimensions(ctypes.Structure):
    _fields_ = [('x', c_uint), ('y', c_uint), ('z', c_uint)]


class Wrapper(ctypes.Structure):
    _fields_ = [('magic', c_uint), ('version', c_uint), ('data', c_char_p), ('unused', c_void_p)]


def fat_binary(text):
    """One entry, PTX that is not compressed, as fatbinary writes it."""
    payload = text.encode() + b'\0'
    payload += bytes(-len(payload) % 8)
    entry = struct.pack('<HHIQIIIIIIQQQ', 1, 0x101, 64, len(payload), 0, 0, 7, 52, 64, 0, 0x11, 0, 0) + payload
    return struct.pack('<IHHQ', 0xBA55ED50, 1, 16, len(entry)) + entry


class Program:
    """A process with the runtime loaded and the fat binary registered, as the code that nvcc puts before main does."""

    def __init__(self):
        self.runtime = ctypes.CDLL(library(NAME))
        self.runtime.cudaGetErrorString.restype = c_char_p
        getattr(self.runtime, '__cudaRegisterFatBinary').restype = POINTER(c_void_p)
        self.wrapper = Wrapper(0x466243B1, 1, fat_binary(PTX % PTX_VERSION), None)
        self.offset, self.scale = c_float(0), c_int(0)  # a variable and a function, of which only the address counts
        handle = getattr(self.runtime, '__cudaRegisterFatBinary')(byref(self.wrapper))
        getattr(self.runtime, '__cudaRegisterFunction')(handle, byref(self.scale), b'scale', b'scale', c_int(-1), None,
                                                        None, None, None, None)
        getattr(self.runtime, '__cudaRegisterVar')(handle, byref(self.offset), b'offset', b'offset', c_int(0),
                                                   c_size_t(4), c_int(0), c_int(0))
        getattr(self.runtime, '__cudaRegisterFatBinaryEnd')(handle)

    def call(self, name, *arguments):
        status = getattr(self.runtime, name)(*arguments)
        if status != 0:
            raise RuntimeError(f'{name}: {status} {self.runtime.cudaGetErrorString(status).decode()}')

    def allocate(self, values):
        address = c_void_p()
        self.call('cudaMalloc', byref(address), c_size_t(ctypes.sizeof(values)))
        self.call('cudaMemcpy', address, values, c_size_t(ctypes.sizeof(values)), c_int(TO_DEVICE))
        return address

    def launch(self, address, factor, count, stream=None, block=128):
        values = [c_void_p(address.value), c_float(factor), c_uint(count)]
        parameters = (c_void_p * 3)(*[ctypes.cast(byref(value), c_void_p) for value in values])
        self.call('cudaLaunchKernel', byref(self.scale), Dimensions((count + block - 1) // block, 1, 1),
                  Dimensions(block, 1, 1), parameters, c_size_t(0), stream)

    def read(self, address, values):
        self.call('cudaMemcpy', values, address, c_size_t(ctypes.sizeof(values)), c_int(TO_HOST))
        return list(values)


def floats(count):
    return (c_float * count)(*range(count))


@case
def version_and_device():
    program, number = Program(), c_int()
    program.call('cudaRuntimeGetVersion', byref(number))
    assert number.value == VERSION, number.value
    program.call('cudaDriverGetVersion', byref(number))
    assert number.value == 13000, number.value
    program.call('cudaGetDeviceCount', byref(number))
    assert number.value == 1, number.value
    program.call('cudaDeviceGetAttribute', byref(number), c_int(1), c_int(0))
    assert number.value == 1024, number.value


@case
def registered_kernel():
    program, values = Program(), floats(1000)
    address = program.allocate(values)
    program.launch(address, 2.5, 900)
    assert program.read(address, values) == [2.5 * i if i < 900 else i for i in range(1000)]
    program.call('cudaFree', address)


@case
def registered_variable():
    program, values = Program(), floats(64)
    program.call('cudaMemcpyToSymbol', byref(program.offset), byref(c_float(7)), c_size_t(4), c_size_t(0),
                 c_int(TO_DEVICE))
    address = program.allocate(values)
    program.launch(address, 1.0, 64)
    assert program.read(address, values) == [i + 7 for i in range(64)]


@case
def streams_events_and_pinned_memory():
    program, bytes_ = Program(), 4 * 4096
    stream, begun, ended = c_void_p(), c_void_p(), c_void_p()
    program.call('cudaStreamCreate', byref(stream))
    for event in (begun, ended):
        program.call('cudaEventCreate', byref(event))
    pinned, address = c_void_p(), c_void_p()
    program.call('cudaMallocHost', byref(pinned), c_size_t(bytes_))
    program.call('cudaMalloc', byref(address), c_size_t(bytes_))
    values = (c_float * 4096).from_address(pinned.value)
    values[:] = range(4096)
    program.call('cudaEventRecord', begun, stream)
    program.call('cudaMemcpyAsync', address, pinned, c_size_t(bytes_), c_int(TO_DEVICE), stream)
    program.launch(address, 3.0, 4096, stream)
    program.call('cudaMemcpyAsync', pinned, address, c_size_t(bytes_), c_int(TO_HOST), stream)
    program.call('cudaEventRecord', ended, stream)
    program.call('cudaEventSynchronize', ended)
    milliseconds = c_float(-1)
    program.call('cudaEventElapsedTime', byref(milliseconds), begun, ended)
    assert milliseconds.value >= 0
    assert list(values) == [3 * i for i in range(4096)]


@case
def impossible_launch():
    """More threads in a block than there can be: refused, and the next launch works."""
    program, values = Program(), floats(64)
    address = program.allocate(values)
    try:
        program.launch(address, 1.0, 64, block=2048)
    except RuntimeError as error:
        refusal = error
        program.launch(address, 2.0, 64)
        assert program.read(address, values) == [2 * i for i in range(64)]
        raise refusal
    raise AssertionError('it was not refused')


if __name__ == '__main__':
    sys.exit(main())
