#!/usr/bin/env python3
"""Random arithmetic, compiled once for the host by g++ and once for the software GPU by nvcc: every bit must agree.

  random_arithmetic.py --nvcc NVCC --driver LIBCUDA [--seed N] [--functions N] [--programs N]

The functions are C without undefined behaviour: integers of all sizes, float and double with IEEE rounding, their
conversions, bit operations, loops and branches. NaNs count as equal, since their payloads are not defined.
"""

import argparse
import os
import pathlib
import random
import subprocess
import sys
import tempfile

SIGNED = ("int8_t", "int16_t", "int32_t", "int64_t")
UNSIGNED = ("uint8_t", "uint16_t", "uint32_t", "uint64_t")
INTEGERS = SIGNED + UNSIGNED
FLOATS = ("float", "double")
STATEMENTS = 24
ITEMS = 1024

PRELUDE = r"""
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#define BOTH static inline __host__ __device__

template <class T> struct Bits { using type = T; };
template <> struct Bits<int8_t> { using type = uint32_t; };
template <> struct Bits<int16_t> { using type = uint32_t; };
template <> struct Bits<uint8_t> { using type = uint32_t; };
template <> struct Bits<uint16_t> { using type = uint32_t; };
template <> struct Bits<int32_t> { using type = uint32_t; };
template <> struct Bits<int64_t> { using type = uint64_t; };
template <class T> using U = typename Bits<T>::type;

template <class T> BOTH T add(T a, T b) { return T(U<T>(a) + U<T>(b)); }
template <class T> BOTH T sub(T a, T b) { return T(U<T>(a) - U<T>(b)); }
template <class T> BOTH T mul(T a, T b) { return T(U<T>(a) * U<T>(b)); }
template <class T> BOTH T shl(T a, unsigned n) { return T(U<T>(a) << (n % (8 * sizeof(T)))); }
template <class T> BOTH T shr(T a, unsigned n) { return T(a >> (n % (8 * sizeof(T)))); }
template <class T> BOTH T quotient(T a, T b) {
  if (b == 0 || (T(-1) < T(0) && b == T(-1))) return a;
  return T(a / b);
}
template <class T> BOTH T remainder_of(T a, T b) {
  if (b == 0 || (T(-1) < T(0) && b == T(-1))) return b;
  return T(a % b);
}
template <class T> BOTH T lesser(T a, T b) { return a < b ? a : b; }
template <class T> BOTH T greater(T a, T b) { return a > b ? a : b; }
template <class T> BOTH T magnitude(T a) { return a < T(0) ? sub(T(0), a) : a; }
// To an integer: what is out of range, or no number, becomes a constant.
template <class T, class F> BOTH T whole(F v) {
  const double low = T(-1) < T(0) ? -std::ldexp(1.0, 8 * int(sizeof(T)) - 1) : 0.0;
  const double high = std::ldexp(1.0, 8 * int(sizeof(T)) - (T(-1) < T(0) ? 1 : 0));
  return double(v) > low && double(v) < high ? T(v) : T(77);
}

BOTH uint32_t count(uint32_t v) {
#ifdef __CUDA_ARCH__
  return __popc(v);
#else
  return __builtin_popcount(v);
#endif
}
BOTH uint32_t zeros(uint64_t v) {
#ifdef __CUDA_ARCH__
  return __clzll(v);
#else
  return v == 0 ? 64 : __builtin_clzll(v);
#endif
}
BOTH uint32_t reversed(uint32_t v) {
#ifdef __CUDA_ARCH__
  return __brev(v);
#else
  uint32_t r = 0;
  for (int i = 0; i < 32; ++i) r |= (v >> i & 1) << (31 - i);
  return r;
#endif
}
BOTH uint32_t permuted(uint32_t a, uint32_t b, uint32_t s) {
#ifdef __CUDA_ARCH__
  return __byte_perm(a, b, s & 0x7777);
#else
  const uint64_t all = uint64_t(b) << 32 | a;
  uint32_t r = 0;
  for (int i = 0; i < 4; ++i) r |= uint32_t(all >> (8 * (s >> (4 * i) & 7)) & 0xff) << (8 * i);
  return r;
#endif
}
BOTH uint64_t upper(uint64_t a, uint64_t b) {
#ifdef __CUDA_ARCH__
  return __umul64hi(a, b);
#else
  return uint64_t((unsigned __int128)(a) * b >> 64);
#endif
}
BOTH int32_t dot4(int32_t a, int32_t b, int32_t c) {
#if defined(__CUDA_ARCH__)
  return __dp4a(a, b, c);
#else
  uint32_t r = uint32_t(c);
  for (int i = 0; i < 4; ++i) r += uint32_t(int8_t(a >> (8 * i)) * int8_t(b >> (8 * i)));
  return int32_t(r);
#endif
}
BOTH uint32_t funnel(uint32_t low, uint32_t high, uint32_t n) {
#ifdef __CUDA_ARCH__
  return __funnelshift_l(low, high, n);
#else
  return uint32_t((uint64_t(high) << 32 | low) << (n & 31) >> 32);
#endif
}
BOTH float through_half(float v) { return __half2float(__float2half_rn(v)); }
BOTH float through_brain(float v) { return __bfloat162float(__float2bfloat16_rn(v)); }

BOTH uint64_t bits(float v) { uint32_t u; memcpy(&u, &v, 4); return v != v ? 0x7fc00000u : u; }
BOTH uint64_t bits(double v) { uint64_t u; memcpy(&u, &v, 8); return v != v ? uint64_t(0x7ff8) << 48 : u; }
BOTH float single_of(uint64_t v) { const uint32_t u = uint32_t(v); float f; memcpy(&f, &u, 4); return f; }
BOTH double double_of(uint64_t v) { double d; memcpy(&d, &v, 8); return d; }
"""

MAIN = r"""
uint64_t edgy(uint64_t* state) {
  static const uint64_t kEdges[] = {0, 1, 2, 31, 32, 127, 128, 255, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000,
      0xffffffff, ~uint64_t(0), uint64_t(1) << 63, 0x3f800000, 0x7f800000, 0x7fc00000, 0x00800000, 0x007fffff,
      0x4f000000, 0x3ff0000000000000, 0x7ff0000000000000, 0x0010000000000000, 0x43e0000000000000, 0x4b000000};
  const auto next = [&] { *state ^= *state << 13; *state ^= *state >> 7; *state ^= *state << 17; return *state; };
  const uint64_t r = next();
  if (r % 4 == 0) return kEdges[r / 4 % (sizeof(kEdges) / sizeof(kEdges[0]))];
  if (r % 4 == 1) return (next() & 0x80ffffff) | (0x3c000000 + (r >> 40 & 7) * 0x01000000);
  if (r % 4 == 2) return (next() & 0x800fffffffffffff) | (0x3f0 + (r >> 53 & 31)) << 52;
  return next();
}

int main() {
  std::vector<uint64_t> in(3 * kItems), want(kOutputs), got(kItems * kOutputs);
  uint64_t state = kSeed * 2654435761u + 88172645463325252u;
  for (uint64_t& v : in) v = edgy(&state);
  uint64_t *d_in, *d_out;
  cudaMalloc(&d_in, in.size() * 8);
  cudaMalloc(&d_out, got.size() * 8);
  cudaMemcpy(d_in, in.data(), in.size() * 8, cudaMemcpyHostToDevice);
  int wrong = 0;
  for (int f = 0; f < kFunctions; ++f) {
    kLaunch[f](d_in, d_out);
    const cudaError_t error = cudaMemcpy(got.data(), d_out, got.size() * 8, cudaMemcpyDeviceToHost);
    if (error != cudaSuccess) return printf("function %d: %s\n", f, cudaGetErrorString(error)), 1;
    for (int i = 0; i < kItems && wrong < 10; ++i) {
      kHost[f](&in[3 * i], want.data());
      for (int o = 0; o < kOutputs; ++o) {
        if (want[o] == got[i * kOutputs + o]) continue;
        ++wrong;
        printf("function %d, v%d of (%#llx, %#llx, %#llx): g++ %#llx, software GPU %#llx\n", f, o,
               (unsigned long long)in[3 * i], (unsigned long long)in[3 * i + 1], (unsigned long long)in[3 * i + 2],
               (unsigned long long)want[o], (unsigned long long)got[i * kOutputs + o]);
        break;
      }
    }
  }
  printf("%d functions, %d inputs, %d differ\n", kFunctions, kItems, wrong);
  return wrong != 0;
}
"""


class Function:
    """One function: variables v0, v1, ... of random types, each made from earlier ones."""

    def __init__(self, rng, number):
        self.rng = rng
        self.types = []
        self.lines = [f"BOTH void f{number}(const uint64_t* in, uint64_t* out) {{"]
        for i, kind in enumerate(("uint64_t", "int32_t", "float", "double", "uint32_t", "int64_t")):
            source = f"in[{i % 3}]"
            value = {"float": f"single_of({source})", "double": f"double_of({source})"}.get(kind, f"{kind}({source})")
            self.add(kind, value)
        while len(self.types) < STATEMENTS:
            self.statement()
        self.outputs()

    def add(self, kind, value):
        self.lines.append(f"  {kind} v{len(self.types)} = {value};")
        self.types.append(kind)

    def operand(self, kind):
        """An expression of the type: a variable, a converted one, or a constant."""
        same = [f"v{i}" for i, have in enumerate(self.types) if have == kind]
        if same and self.rng.random() < 0.7:
            return self.rng.choice(same)
        index = self.rng.randrange(len(self.types))
        have = self.types[index]
        if self.rng.random() < 0.1:
            return f"{kind}({self.rng.choice((0, 1, 2, 3, 7, 100))})"
        if have in FLOATS and kind in INTEGERS:
            return f"whole<{kind}>(v{index})"
        return f"{kind}(v{index})"

    def condition(self):
        kind = self.rng.choice(INTEGERS + FLOATS)
        return f"{self.operand(kind)} {self.rng.choice(('<', '<=', '==', '!=', '>', '>='))} {self.operand(kind)}"

    def integer(self, kind):
        a, b = self.operand(kind), self.operand(kind)
        calls = ("add", "sub", "mul", "quotient", "remainder_of", "lesser", "greater")
        shift = self.operand("uint32_t")
        word = [self.operand("uint32_t") for _ in range(3)]
        return self.rng.choice([f"{self.rng.choice(calls)}<{kind}>({a}, {b})" for _ in range(5)] + [
            f"{kind}({a} {self.rng.choice('&|^')} {b})", f"{kind}(~{a})", f"shl<{kind}>({a}, {shift})",
            f"shr<{kind}>({a}, {shift})", f"magnitude<{kind}>({a})", f"{kind}({self.condition()} ? {a} : {b})",
            f"{kind}(count({word[0]}))", f"{kind}(zeros({self.operand('uint64_t')}))", f"{kind}(reversed({word[0]}))",
            f"{kind}(permuted({word[0]}, {word[1]}, {word[2]}))", f"{kind}(funnel({word[0]}, {word[1]}, {word[2]}))",
            f"{kind}(upper({self.operand('uint64_t')}, {self.operand('uint64_t')}))",
            f"{kind}(dot4({', '.join(self.operand('int32_t') for _ in range(3))}))"])

    def real(self, kind):
        a, b, c = (self.operand(kind) for _ in range(3))
        one = self.rng.choice(("std::sqrt", "std::fabs", "std::floor", "std::ceil", "std::trunc", "std::rint"))
        choices = [f"{a} {self.rng.choice('+-*/')} {b}" for _ in range(6)]
        choices += [f"{one}({a})", f"std::fma({a}, {b}, {c})", f"-{a}", f"{self.condition()} ? {a} : {b}",
                    f"lesser<{kind}>({a}, {b})"]
        if kind == "float":
            choices += [f"through_half({a})", f"through_brain({a})"]
        return self.rng.choice(choices)

    def statement(self):
        kind = self.rng.choice(INTEGERS + FLOATS * 3)
        value = self.real(kind) if kind in FLOATS else self.integer(kind)
        draw = self.rng.random()
        if draw < 0.12:
            name = f"v{len(self.types)}"
            times = self.rng.randrange(1, 6)
            step = f"{name} * {self.operand(kind)}" if kind in FLOATS else f"add<{kind}>({name}, {self.operand(kind)})"
            self.add(kind, value)
            self.lines.append(f"  for (int i = 0; i < {times} + int(in[0] & 3); ++i) {name} = {step};")
        elif draw < 0.22:
            condition, other = self.condition(), self.operand(kind)
            self.add(kind, other)
            self.lines.append(f"  if ({condition}) v{len(self.types) - 1} = {value};")
        else:
            self.add(kind, value)

    def outputs(self):
        for i, kind in enumerate(self.types):
            self.lines.append(f"  out[{i}] = {f'bits(v{i})' if kind in FLOATS else f'uint64_t(v{i})'};")
        self.lines.append("}")


def program(seed, functions):
    rng = random.Random(seed)
    parts = [PRELUDE, f"constexpr int kItems = {ITEMS}, kFunctions = {functions}, kOutputs = {STATEMENTS};",
             f"constexpr uint64_t kSeed = {seed};"]
    for i in range(functions):
        parts += Function(rng, i).lines
        parts.append(f"__global__ void k{i}(const uint64_t* in, uint64_t* out) {{ const unsigned t = blockIdx.x * "
                     f"blockDim.x + threadIdx.x; f{i}(in + 3 * t, out + t * kOutputs); }}")
        parts.append(f"void l{i}(const uint64_t* in, uint64_t* out) {{ k{i}<<<kItems / 128, 128>>>(in, out); }}")
    names = range(functions)
    parts.append("void (*const kLaunch[])(const uint64_t*, uint64_t*) = {" + ", ".join(f"l{i}" for i in names) + "};")
    parts.append("void (*const kHost[])(const uint64_t*, uint64_t*) = {" + ", ".join(f"f{i}" for i in names) + "};")
    return "\n".join(parts) + MAIN


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvcc", required=True)
    parser.add_argument("--driver", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--functions", type=int, default=16)
    parser.add_argument("--programs", type=int, default=1)
    parser.add_argument("--keep", help="a folder for the programs")
    options = parser.parse_args()
    environment = dict(os.environ, LD_LIBRARY_PATH=str(pathlib.Path(options.driver).parent))
    failed = 0
    for seed in range(options.seed, options.seed + options.programs):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(options.keep or folder)
            source, binary = folder / f"random{seed}.cu", folder / f"random{seed}"
            source.write_text(program(seed, options.functions))
            subprocess.run([options.nvcc, "-std=c++17", "-O2", "-fmad=false", "-arch=compute_80", "-w", "-Xcompiler",
                            "-ffp-contract=off", "-o", binary, source], check=True, timeout=600)
            run = subprocess.run([binary], env=environment, timeout=300, check=False)
            failed |= run.returncode
            if run.returncode:
                print(f"random_arithmetic: seed {seed}: ended with {run.returncode}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
