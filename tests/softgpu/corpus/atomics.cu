// Atomic functions of all types and scopes, cuda::atomic_ref, cuda::atomic, fences.
#include <cuda/atomic>

#define ALL(T, p)                                                                                        \
  x += atomicAdd(p, T(1)) + atomicExch(p, T(2)) + atomicAdd_block(p, T(3)) + atomicAdd_system(p, T(4)) + \
       atomicExch_block(p, T(5)) + atomicExch_system(p, T(6));
#define INTEGERS(T, p)                                                                                               \
  x += atomicMin(p, T(1)) + atomicMax(p, T(2)) + atomicCAS(p, T(3), T(4)) + atomicAnd(p, T(5)) + atomicOr(p, T(6)) + \
       atomicXor(p, T(7)) + atomicMin_block(p, T(1)) + atomicMax_system(p, T(2)) + atomicCAS_block(p, T(3), T(4)) +  \
       atomicAnd_system(p, T(5)) + atomicOr_block(p, T(6)) + atomicXor_system(p, T(7));
template <class T>
__device__ long long integers(T* p) {
  long long x = 0;
  ALL(T, p) INTEGERS(T, p) return x;
}
__global__ void device_atomics(int* i, unsigned* u, unsigned long long* l, float* f, double* d, unsigned short* s) {
  long long x = integers(i) + integers(u) + integers(l);
  ALL(float, f)
  x += atomicAdd(d, 1.0) + atomicAdd_block(d, 2.0) + atomicAdd_system(d, 3.0);
  x += atomicSub(i, 3) + atomicSub(u, 4u) + atomicInc(u, 7u) + atomicDec(u, 9u) + atomicInc_block(u, 3u);
  x += atomicMin(reinterpret_cast<long long*>(l), -3ll) + atomicMax(reinterpret_cast<long long*>(l), 3ll);
  x += atomicCAS(s, static_cast<unsigned short>(1), static_cast<unsigned short>(2));
  l[1] = x;
}
__global__ void shared_atomics(int* out) {
  __shared__ int i[4];
  __shared__ unsigned u[4];
  __shared__ unsigned long long l[4];
  __shared__ float f[4];
  __shared__ double d[4];
  long long x = integers(i) + integers(u) + integers(l);
  ALL(float, f)
  x += atomicAdd(d, 1.0) + atomicInc(u, 7u) + atomicDec(u, 9u);
  atomicAdd(i, 1), atomicMin(u, 3u), atomicOr(l, 5ull);  // without results
  out[0] = static_cast<int>(x);
}
#if __CUDA_ARCH__ >= 900
__global__ void vectors(float2* f2, float4* f4) {
  f2[1] = atomicAdd(f2, float2{1, 2});
  f4[1] = atomicAdd(f4, float4{1, 2, 3, 4});
}
struct alignas(16) Pair {
  unsigned long long a, b;
};
__global__ void sixteen_bytes(Pair* p) {
  p[1] = atomicExch(p, p[2]);
  p[3] = atomicCAS(p, p[4], p[5]);
  p[6] = atomicExch_block(p, p[2]), p[7] = atomicCAS_system(p, p[4], p[5]);
}
__global__ void builtins(unsigned* p, unsigned long long* l, float* f) {
  *p = __nv_atomic_fetch_add(p, 1u, __NV_ATOMIC_RELAXED, __NV_THREAD_SCOPE_CLUSTER);
  *p += __nv_atomic_fetch_min(p, 1u, __NV_ATOMIC_ACQ_REL, __NV_THREAD_SCOPE_SYSTEM);
  *f = __nv_atomic_fetch_add(f, 1.0f, __NV_ATOMIC_SEQ_CST, __NV_THREAD_SCOPE_DEVICE);
  unsigned long long seen = 3;
  l[1] = __nv_atomic_compare_exchange_n(l, &seen, 4ull, false, __NV_ATOMIC_SEQ_CST, __NV_ATOMIC_RELAXED,
                                        __NV_THREAD_SCOPE_BLOCK);
  __nv_atomic_store_n(l, 3ull, __NV_ATOMIC_RELEASE, __NV_THREAD_SCOPE_DEVICE);
  l[2] = __nv_atomic_load_n(l, __NV_ATOMIC_ACQUIRE, __NV_THREAD_SCOPE_DEVICE);
  __nv_atomic_thread_fence(__NV_ATOMIC_ACQ_REL, __NV_THREAD_SCOPE_CLUSTER);
}
#endif

template <class T, cuda::thread_scope Scope>
__device__ T through_ref(T* p) {
  cuda::atomic_ref<T, Scope> r(*p);
  T x = r.load(cuda::memory_order_acquire) + r.exchange(T(1)) + r.fetch_add(T(2), cuda::memory_order_relaxed);
  r.store(x, cuda::memory_order_release);
  T expected = T(3);
  r.compare_exchange_strong(expected, T(4));
  r.compare_exchange_weak(expected, T(5), cuda::memory_order_acq_rel, cuda::memory_order_relaxed);
  x += r.fetch_sub(T(1)) + r.fetch_min(T(1)) + r.fetch_max(T(1));
  return x + expected;
}
template <class T, cuda::thread_scope Scope>
__device__ T bits_through_ref(T* p) {
  cuda::atomic_ref<T, Scope> r(*p);
  return r.fetch_and(T(1)) + r.fetch_or(T(2)) + r.fetch_xor(T(3)) + ++r;
}
template <cuda::thread_scope Scope>
__device__ void all_types(int* i, unsigned long long* l, float* f, double* d, unsigned char* c, short* s) {
  *i += through_ref<int, Scope>(i) + bits_through_ref<int, Scope>(i);
  *l += through_ref<unsigned long long, Scope>(l) + bits_through_ref<unsigned long long, Scope>(l);
  *f += through_ref<float, Scope>(f), *d += through_ref<double, Scope>(d);
  *c += bits_through_ref<unsigned char, Scope>(c), *s += bits_through_ref<short, Scope>(s);
}
__global__ void references(int* i, unsigned long long* l, float* f, double* d, unsigned char* c, short* s) {
  all_types<cuda::thread_scope_system>(i, l, f, d, c, s);
  all_types<cuda::thread_scope_device>(i, l, f, d, c, s);
  all_types<cuda::thread_scope_block>(i, l, f, d, c, s);
  cuda::atomic_thread_fence(cuda::memory_order_seq_cst, cuda::thread_scope_device);
  cuda::atomic_thread_fence(cuda::memory_order_acquire, cuda::thread_scope_block);
  __threadfence(), __threadfence_block(), __threadfence_system();
}
__global__ void objects(cuda::atomic<int, cuda::thread_scope_device>* a, cuda::std::atomic<long long>* b,
                        cuda::std::atomic_flag* flag) {
  a->fetch_add(1), b->fetch_sub(3), a->notify_all();
  a->wait(3);
  while (flag->test_and_set()) __nanosleep(20);
  flag->clear();
}
