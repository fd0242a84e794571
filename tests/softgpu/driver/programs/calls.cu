// nvcc: -arch=sm_80
// Functions that call themselves, pointers to locals of an outer activation, virtual functions, and the end of a stack.
#include "expect.h"

__device__ __noinline__ int fibonacci(int n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }

// Each activation writes into the local of the one outside.
__device__ __noinline__ void add_up(int* outer, int depth) {
  int mine[2] = {depth, 0};
  if (depth > 0) add_up(&mine[1], depth - 1);
  *outer = mine[0] + mine[1];
}

__device__ __noinline__ bool is_odd(int n);
__device__ __noinline__ bool is_even(int n) { return n == 0 ? true : is_odd(n - 1); }
__device__ __noinline__ bool is_odd(int n) { return n == 0 ? false : is_even(n - 1); }

struct Shape {
  __device__ virtual int area() const = 0;
};
struct Square : Shape {
  int side;
  __device__ explicit Square(int s) : side(s) {}
  __device__ int area() const override { return side * side; }
};
struct Pair : Shape {
  const Shape *a, *b;
  __device__ Pair(const Shape* x, const Shape* y) : a(x), b(y) {}
  __device__ int area() const override { return a->area() + b->area(); }
};

struct Wide {
  int values[5];
};
__device__ __noinline__ Wide widen(int n) {
  Wide w = n > 0 ? widen(n - 1) : Wide{};
  w.values[n % 5] += n;
  return w;
}

__global__ void compute(int* out) {
  const int i = static_cast<int>(threadIdx.x);
  int sum = 0;
  add_up(&sum, i % 7);
  Square two(2), own(i);
  Pair pair(&two, &own), nested(&pair, &two);
  const Shape* shape = i % 3 == 0 ? static_cast<const Shape*>(&nested) : &own;
  int wide = 0;
  const Wide w = widen(i % 9);
  for (int k = 0; k < 5; ++k) wide += w.values[k] * (k + 1);
  out[5 * i] = fibonacci(i % 11);
  out[5 * i + 1] = sum;
  out[5 * i + 2] = is_even(i % 13) ? 1 : 0;
  out[5 * i + 3] = shape->area();
  out[5 * i + 4] = wide;
}

__device__ __noinline__ int endless(int n) {
  volatile int here = n;
  return endless(n + 1) + here;
}
__global__ void fall(int* out) { *out = endless(0); }

int main() {
  constexpr int kThreads = 96;
  int* device = nullptr;
  int host[5 * kThreads];
  CALL(cudaDeviceSetLimit(cudaLimitStackSize, 4096));
  CALL(cudaMalloc(&device, sizeof(host)));
  compute<<<1, kThreads>>>(device);
  CALL(cudaMemcpy(host, device, sizeof(host), cudaMemcpyDeviceToHost));
  const int fibonaccis[] = {0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55};
  for (int i = 0; i < kThreads; ++i) {
    const int d = i % 7, area = i % 3 == 0 ? 4 + i * i + 4 : i * i;
    int wide = 0;
    for (int n = 1; n <= i % 9; ++n) wide += n * (n % 5 + 1);
    EXPECT(host[5 * i] == fibonaccis[i % 11]);
    EXPECT(host[5 * i + 1] == d * (d + 1) / 2);
    EXPECT(host[5 * i + 2] == (i % 13 % 2 == 0 ? 1 : 0));
    EXPECT(host[5 * i + 3] == area);
    EXPECT(host[5 * i + 4] == wide);
  }
  fall<<<1, 1>>>(device);
  EXPECT(cudaDeviceSynchronize() == cudaErrorIllegalAddress);
  std::puts("ok");
  return 0;
}
