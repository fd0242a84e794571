// nvcc: --extended-lambda
// The language itself: calls, memory, text, assembly.
#include <cassert>
#include <cstdio>
#include <cstdlib>

struct Shape {
  __device__ virtual ~Shape() {}
  __device__ virtual float area() const = 0;
  float side = 1;
};
struct Square : Shape {
  __device__ float area() const override { return side * side; }
};
struct Circle : Shape {
  __device__ float area() const override { return 3.14f * side * side; }
};
__global__ void virtual_functions(float* out, int which) {
  Shape* shape = which != 0 ? static_cast<Shape*>(new Square) : new Circle;
  out[0] = shape->area();
  delete shape;
}

__device__ float twice(float x) { return 2 * x; }
__device__ float thrice(float x) { return 3 * x; }
__device__ float (*const kTable[])(float) = {twice, thrice};
__global__ void function_pointers(float* out, int which) { out[0] = kTable[which](out[1]); }

__device__ __noinline__ int fibonacci(int n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }
__device__ int odd(int n);
__device__ __noinline__ int even(int n) { return n == 0 ? 1 : odd(n - 1); }
__device__ __noinline__ int odd(int n) { return n == 0 ? 0 : even(n - 1); }
__global__ void recursion(int* out) { out[0] = fibonacci(out[1]) + even(out[2]); }

struct Big {
  double d[9];
  char c[5];
};
__device__ __noinline__ Big passed(Big b, int n) {
  b.d[n] += b.c[n & 3];
  return b;
}
__global__ void structures(Big* b, Big by_value) { b[0] = passed(by_value, b[1].c[0]); }

__global__ void locals(int* out, int n) {
  int room[64];
  for (int i = 0; i < 64; ++i) room[i] = out[i];
  for (int i = 0; i < n; ++i) room[room[i] & 63] += i;
  for (int i = 0; i < 64; ++i) out[i] = room[i];
}
__global__ void stack(int* out, int n) {
  char* room = static_cast<char*>(alloca(static_cast<size_t>(n)));
  for (int i = 0; i < n; ++i) room[i] = static_cast<char>(out[i]);
  out[0] = room[out[1]];
}
__global__ void heap(int** out) {
  out[threadIdx.x] = static_cast<int*>(malloc(40));
  free(out[threadIdx.x + 32]);
  int* some = new int[8];
  some[threadIdx.x & 7] = 3;
  delete[] some;
}
__global__ void text(int n, double d, const char* s) {
  printf("%d %f %s %c %lld\n", n, d, s, 'x', 7ll);
  assert(n == 3);
  if (n == 7) __trap();
  if (n == 8) __brkpt();
  if (n == 9) __builtin_unreachable();
  __nanosleep(100);
}

__constant__ int small[16];
__constant__ double numbers[] = {1.5, 2.5};
__device__ int plain = 3;
__device__ int* pointer = &plain;
__managed__ int shared_with_host = 4;
extern __shared__ char dynamic[];
__global__ void spaces(int* out, int i) {
  __shared__ int fixed[32];
  fixed[threadIdx.x] = small[i] + static_cast<int>(numbers[i & 1]) + plain + *pointer + shared_with_host;
  __syncthreads();
  reinterpret_cast<int*>(dynamic)[threadIdx.x] = fixed[31 - threadIdx.x];
  out[0] =
      reinterpret_cast<int*>(dynamic)[i] + __isGlobal(out) + __isShared(fixed) + __isLocal(out) + __isConstant(small);
  out[1] = static_cast<int>(__cvta_generic_to_shared(fixed)) + *static_cast<int*>(__cvta_shared_to_generic(16));
}
__global__ void volatile_memory(volatile int* v, volatile float4* f) {
  while (v[0] == 0) {
  }
  v[1] = v[2];
  const float x = f->x;
  f->y = x;
}
__global__ void cached(int* i, float4* f, double2* d, char* c) {
  i[0] = __ldg(i + 1) + __ldcg(i + 2) + __ldca(i + 3) + __ldcs(i + 4) + __ldlu(i + 5) + __ldcv(i + 6);
  __stwb(i + 7, 1), __stcg(i + 8, 2), __stcs(i + 9, 3), __stwt(i + 10, 4);
  f[0] = __ldg(f + 1), d[0] = __ldcs(d + 1), c[0] = __ldg(c + 1);
  __stcs(f + 2, f[3]);
}
__global__ void __launch_bounds__(128, 4) bounded(int* out) { out[threadIdx.x] = threadIdx.x; }
__global__ void __maxnreg__(32) few_registers(int* out) { out[threadIdx.x] = threadIdx.x; }
__global__ void grid_constant(const __grid_constant__ Big b, double* out) {
  const double* p = b.d;
  out[0] = p[static_cast<int>(out[1])];
}
__global__ void switches(int* out, int n) {
  switch (n) {
    case 0:
      out[0] = 5;
      break;
    case 1:
      out[1] = 6;
      break;
    case 2:
      out[2] = 8;
      break;
    case 3:
      out[0] = 15;
      break;
    case 4:
      out[4] = 25;
      break;
    case 5:
      out[0] = 35;
      break;
    case 6:
      out[6] = 45;
      [[fallthrough]];
    case 7:
      out[0] = 55;
      break;
    default:
      out[8] = 1;
  }
}
template <class F>
__global__ void with_lambda(F f, int* out) {
  out[threadIdx.x] = f(threadIdx.x);
}
void instantiate(int* out) {
  with_lambda<<<1, 32>>>([=] __device__(int i) { return 3 * i; }, out);
}
__global__ void assembly(unsigned* u, float* f, double* d, unsigned long long* l) {
  asm volatile("{ .reg .pred p; setp.gt.u32 p, %1, 3; @p add.u32 %0, %1, 1; @!p mov.u32 %0, 0; }"
               : "=r"(u[0])
               : "r"(u[1]));
  asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(u[2]), "=r"(u[3]), "=r"(u[4]), "=r"(u[5])
               : "l"(u + 8));
  asm volatile("st.global.v2.f32 [%0], {%1, %2};" ::"l"(f + 2), "f"(f[0]), "f"(f[1]) : "memory");
  asm volatile("mov.u64 %0, %%globaltimer; mov.u32 %1, %%smid;" : "=l"(l[0]), "=r"(u[6]));
  asm("fma.rn.f64 %0, %1, %1, %1; ex2.approx.f32 %2, %3;" : "=d"(d[0]), "+d"(d[1]), "=f"(f[4]) : "f"(f[5]));
  asm volatile("prefetch.global.L2 [%0]; discard.global.L2 [%0], 128;" ::"l"(l));
  asm volatile("red.global.add.u32 [%0], %1; membar.gl;" ::"l"(u), "r"(u[9]));
  asm volatile("{ .reg .b16 a, b; mov.b32 {a, b}, %1; mov.b32 %0, {b, a}; }" : "=r"(u[7]) : "r"(u[8]));
}
__device__ int in_block(int) { return 0; }
#if __CUDA_ARCH__ >= 900
__global__ void __cluster_dims__(4, 1, 1) in_clusters(int* out) { out[blockIdx.x] = __clusterRelativeBlockRank(); }
__global__ void __block_size__((64, 1, 1), (2, 1, 1)) sized(int* out) { out[blockIdx.x] = __clusterDimIsSpecified(); }
#endif
