// nvcc: -arch=sm_80 -Wno-deprecated-declarations
// Matrix multiplication with nvcuda::wmma: every shape and type, both layouts, from device and shared memory, against
// plain loops. Values are small integers, so that every sum is exact.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>

#include <type_traits>
#include <vector>

#include "expect.h"

using namespace nvcuda;
namespace sub = wmma::experimental::precision;

// In memory, elements of four bits and one are packed; everything else is itself.
template <class T>
struct Stored {
  using type = T;
  static constexpr int kPerItem = 1;
};
template <>
struct Stored<wmma::precision::tf32> {
  using type = float;
  static constexpr int kPerItem = 1;
};
template <>
struct Stored<sub::s4> {
  using type = unsigned;
  static constexpr int kPerItem = 8;
};
template <>
struct Stored<sub::u4> : Stored<sub::s4> {};
template <>
struct Stored<sub::b1> {
  using type = unsigned;
  static constexpr int kPerItem = 32;
};

enum class How { kPlain, kSaturate, kXor, kAnd };

template <int M, int N, int K, class T, class C, class LayoutA, class LayoutB, How kHow>
__global__ void multiply(const typename Stored<T>::type* a, const typename Stored<T>::type* b, const C* c, C* d,
                         bool shared) {
  using Item = typename Stored<T>::type;
  constexpr int kItems = Stored<T>::kPerItem;
  __shared__ __align__(32) Item sa[M * K / kItems + 8 * M], sb[K * N / kItems + 8 * N];
  for (int i = threadIdx.x; i < M * K / kItems; i += 32) sa[i] = a[i];
  for (int i = threadIdx.x; i < K * N / kItems; i += 32) sb[i] = b[i];
  __syncwarp();
  wmma::fragment<wmma::matrix_a, M, N, K, T, LayoutA> fa;
  wmma::fragment<wmma::matrix_b, M, N, K, T, LayoutB> fb;
  wmma::fragment<wmma::accumulator, M, N, K, C> fc, fd;
  constexpr int kLineA = std::is_same_v<LayoutA, wmma::row_major> ? K : M;
  constexpr int kLineB = std::is_same_v<LayoutB, wmma::row_major> ? N : K;
  wmma::load_matrix_sync(fa, shared ? sa : a, kLineA);
  wmma::load_matrix_sync(fb, shared ? sb : b, kLineB);
  wmma::load_matrix_sync(fc, c, N, wmma::mem_row_major);
  if constexpr (kHow == How::kXor) wmma::bmma_sync(fd, fa, fb, fc, wmma::experimental::bmmaBitOpXOR);
  if constexpr (kHow == How::kAnd) wmma::bmma_sync(fd, fa, fb, fc, wmma::experimental::bmmaBitOpAND);
  if constexpr (kHow == How::kPlain && std::is_same_v<C, int>) wmma::mma_sync(fd, fa, fb, fc, false);
  if constexpr (kHow == How::kPlain && !std::is_same_v<C, int>) wmma::mma_sync(fd, fa, fb, fc);
  if constexpr (kHow == How::kSaturate) wmma::mma_sync(fd, fa, fb, fc, true);
  for (int i = 0; i < fd.num_elements; ++i)
    fd.x[i] = fd.x[i] + fd.x[i] - fd.x[i];  // elements of a fragment, one by one
  wmma::store_matrix_sync(d, fd, M, wmma::mem_col_major);
}

unsigned state = 1;
int random_below(int n) { return int((state = state * 1664525u + 1013904223u) >> 8) % n; }

template <class T>
int low() {
  if (std::is_same_v<T, sub::b1> || std::is_same_v<T, sub::u4> || std::is_same_v<T, unsigned char>) return 0;
  return std::is_same_v<T, sub::s4> ? -8 : std::is_same_v<T, signed char> ? -128 : -9;
}
template <class T>
int count() {
  if (std::is_same_v<T, sub::b1>) return 2;
  if (std::is_same_v<T, sub::u4> || std::is_same_v<T, sub::s4>) return 16;
  return std::is_same_v<T, signed char> || std::is_same_v<T, unsigned char> ? 256 : 19;
}

// `values` in lines of this layout, packed.
template <class T>
std::vector<typename Stored<T>::type> packed(const std::vector<int>& values, int rows, int columns, bool by_row) {
  using Item = typename Stored<T>::type;
  constexpr int kItems = Stored<T>::kPerItem, kBits = 32 / kItems;
  std::vector<Item> out(values.size() / kItems, Item(0));
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) {
      const int at = by_row ? r * columns + c : c * rows + r, value = values[r * columns + c];
      if constexpr (kItems == 1) {
        out[at] = Item(float(value));
      } else {
        out[at / kItems] |= (unsigned(value) & ((1u << kBits) - 1)) << (at % kItems * kBits);
      }
    }
  }
  return out;
}

template <class T>
T* upload(const std::vector<T>& values) {
  T* out;
  CALL(cudaMalloc(&out, values.size() * sizeof(T)));
  CALL(cudaMemcpy(out, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  return out;
}

template <int M, int N, int K, class T, class C, class LayoutA, class LayoutB, How kHow>
void try_layouts(bool shared) {
  std::vector<int> a(M * K), b(K * N), c(M * N);
  for (int& v : a) v = low<T>() + random_below(count<T>());
  for (int& v : b) v = low<T>() + random_below(count<T>());
  for (int& v : c) v = random_below(200) - 100;
  if (kHow == How::kSaturate) {
    for (int i = 0; i < M * N; i += 3) c[i] = 0x7fffffff - i % 50;
    for (int i = 1; i < M * N; i += 3) c[i] = -0x7fffffff + i % 50;
  }
  auto* da = upload(packed<T>(a, M, K, std::is_same_v<LayoutA, wmma::row_major>));
  auto* db = upload(packed<T>(b, K, N, std::is_same_v<LayoutB, wmma::row_major>));
  std::vector<C> start(M * N), result(M * N);
  for (int i = 0; i < M * N; ++i) {
    if constexpr (std::is_same_v<C, int>) {
      start[i] = c[i];
    } else {
      start[i] = C(float(c[i]));
    }
  }
  C *dc = upload(start), *dd = upload(result);
  multiply<M, N, K, T, C, LayoutA, LayoutB, kHow><<<1, 32>>>(da, db, dc, dd, shared);
  CALL(cudaMemcpy(result.data(), dd, result.size() * sizeof(C), cudaMemcpyDeviceToHost));
  for (int i = 0; i < M; ++i) {
    for (int j = 0; j < N; ++j) {
      long long sum = c[i * N + j];
      for (int k = 0; k < K; ++k) {
        const int x = a[i * K + k], y = b[k * N + j];
        sum += kHow == How::kXor ? x ^ y : x * y;
      }
      if (kHow == How::kSaturate)
        sum = sum > 0x7fffffff ? 0x7fffffff : sum < -0x7fffffffLL - 1 ? -0x7fffffffLL - 1 : sum;
      EXPECT((long long)(double(result[j * M + i])) == sum);
    }
  }
  for (void* p : {(void*)da, (void*)db, (void*)dc, (void*)dd}) CALL(cudaFree(p));
}

template <int M, int N, int K, class T, class C>
void try_all() {
  using R = wmma::row_major;
  using L = wmma::col_major;
  try_layouts<M, N, K, T, C, R, R, How::kPlain>(false);
  try_layouts<M, N, K, T, C, R, L, How::kPlain>(true);
  try_layouts<M, N, K, T, C, L, R, How::kPlain>(true);
  try_layouts<M, N, K, T, C, L, L, How::kPlain>(false);
}

template <class T, class C>
void try_shapes() {
  try_all<16, 16, 16, T, C>();
  try_all<32, 8, 16, T, C>();
  try_all<8, 32, 16, T, C>();
}

int main() {
  using R = wmma::row_major;
  using L = wmma::col_major;
  try_shapes<half, float>();
  try_shapes<half, half>();
  try_shapes<__nv_bfloat16, float>();
  try_shapes<signed char, int>();
  try_shapes<unsigned char, int>();
  try_all<16, 16, 8, wmma::precision::tf32, float>();
  try_all<8, 8, 4, double, double>();
  try_layouts<16, 16, 16, signed char, int, R, L, How::kSaturate>(true);
  try_layouts<8, 8, 32, sub::s4, int, R, L, How::kPlain>(false);
  try_layouts<8, 8, 32, sub::u4, int, R, L, How::kPlain>(true);
  try_layouts<8, 8, 32, sub::s4, int, R, L, How::kSaturate>(true);
  try_layouts<8, 8, 128, sub::b1, int, R, L, How::kXor>(false);
  try_layouts<8, 8, 128, sub::b1, int, R, L, How::kAnd>(true);
  std::printf("ok\n");
}
