// cuda::barrier, cuda::pipeline, memcpy_async, latch, semaphores, and the primitives below them.
#include <cuda_awbarrier_primitives.h>
#include <cuda_pipeline_primitives.h>

#include <cuda/barrier>
#include <cuda/latch>
#include <cuda/pipeline>
#include <cuda/semaphore>

using Barrier = cuda::barrier<cuda::thread_scope_block>;

__global__ void barriers(int* out, const int* in) {
  __shared__ Barrier bar;
  __shared__ int room[256];
  if (threadIdx.x == 0) init(&bar, blockDim.x);
  __syncthreads();
  cuda::memcpy_async(room + threadIdx.x, in + threadIdx.x, sizeof(int), bar);
  bar.arrive_and_wait();
  auto token = bar.arrive();
  bar.wait(static_cast<Barrier::arrival_token&&>(token));
  bar.wait_parity(true);
  bar.arrive_and_drop();
  out[threadIdx.x] = room[255 - threadIdx.x];
}
__global__ void pipelines(int4* out, const int4* in) {
  __shared__ int4 room[2][32];
  __shared__ cuda::pipeline_shared_state<cuda::thread_scope_block, 2> state;
  struct Group {
    __device__ void sync() const { __syncthreads(); }
    __device__ unsigned size() const { return blockDim.x; }
    __device__ unsigned thread_rank() const { return threadIdx.x; }
  } group;
  auto pipe = cuda::make_pipeline(group, &state);
  for (int i = 0; i < 4; ++i) {
    pipe.producer_acquire();
    cuda::memcpy_async(group, room[i & 1], in + 32 * i, cuda::aligned_size_t<16>(512), pipe);
    pipe.producer_commit();
    pipe.consumer_wait();
    out[32 * i + threadIdx.x] = room[i & 1][threadIdx.x];
    pipe.consumer_release();
  }
  auto own = cuda::make_pipeline();
  own.producer_acquire();
  cuda::memcpy_async(&room[0][threadIdx.x], in + threadIdx.x, cuda::aligned_size_t<16>(16), own);
  own.producer_commit();
  cuda::pipeline_consumer_wait_prior<0>(own);
}
__global__ void primitives(int* out, const int* in) {
  __shared__ int room[64];
  __shared__ __mbarrier_t bar;
  __mbarrier_init(&bar, 32);
  __syncthreads();
  __pipeline_memcpy_async(room + threadIdx.x, in + threadIdx.x, 4);
  __pipeline_memcpy_async(room + 4 * (threadIdx.x & 7), in, 16, 8);
  __pipeline_commit();
  __pipeline_wait_prior(0);
  __pipeline_arrive_on(&bar);
  const auto token = __mbarrier_arrive(&bar);
  while (!__mbarrier_test_wait(&bar, token)) {
  }
  while (!__mbarrier_test_wait_parity(&bar, false)) {
  }
  __mbarrier_arrive_and_drop(&bar);
  out[0] = __mbarrier_token_pending_count(token);
  __mbarrier_inval(&bar);
}
__global__ void others(cuda::latch<cuda::thread_scope_device>* latch,
                       cuda::counting_semaphore<cuda::thread_scope_device>* s,
                       cuda::barrier<cuda::thread_scope_device>* wide,
                       cuda::barrier<cuda::thread_scope_system>* wider) {
  latch->arrive_and_wait();
  s->acquire(), s->release();
  wide->arrive_and_wait(), wider->arrive_and_wait();
}
#if __CUDA_ARCH__ >= 900
__global__ void bulk(int* out, const int* in) {
  __shared__ alignas(128) int room[256];
  __shared__ Barrier bar;
  if (threadIdx.x == 0) {
    init(&bar, blockDim.x);
    cuda::device::experimental::fence_proxy_async_shared_cta();
  }
  __syncthreads();
  Barrier::arrival_token token;
  if (threadIdx.x == 0) {
    cuda::device::experimental::cp_async_bulk_global_to_shared(room, in, sizeof(room), bar);
    token = cuda::device::barrier_arrive_tx(bar, 1, sizeof(room));
  } else {
    token = bar.arrive();
  }
  bar.wait(static_cast<Barrier::arrival_token&&>(token));
  cuda::device::barrier_expect_tx(bar, 16);
  cuda::device::experimental::fence_proxy_async_shared_cta();
  if (threadIdx.x == 0) {
    cuda::device::experimental::cp_async_bulk_shared_to_global(out, room, sizeof(room));
    cuda::device::experimental::cp_async_bulk_commit_group();
    cuda::device::experimental::cp_async_bulk_wait_group_read<0>();
  }
}
#endif
