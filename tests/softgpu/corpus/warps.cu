// What the threads of a warp do together.
template <class T>
__device__ T shuffles(T x) {
  const unsigned all = 0xffffffff;
  return __shfl_sync(all, x, 3) + __shfl_up_sync(all, x, 1) + __shfl_down_sync(all, x, 2, 16) +
         __shfl_xor_sync(all, x, 4);
}
__global__ void shuffled(int* i, unsigned* u, long long* l, unsigned long long* ul, float* f, double* d, long* n) {
  const int t = threadIdx.x;
  i[t] = shuffles(i[t]), u[t] = shuffles(u[t]), l[t] = shuffles(l[t]), ul[t] = shuffles(ul[t]);
  f[t] = shuffles(f[t]), d[t] = shuffles(d[t]), n[t] = shuffles(n[t]);
}
__global__ void votes(unsigned* u) {
  const int p = u[threadIdx.x] & 1;
  unsigned x =
      __ballot_sync(0xff, p) + __any_sync(0xff, p) + __all_sync(0xff, p) + __uni_sync(0xff, p) + __activemask();
  __syncwarp();
  __syncwarp(0xf0f0);
  u[threadIdx.x] = x;
}
template <class T>
__device__ unsigned matches(T x) {
  int all = 0;
  return __match_any_sync(~0u, x) + __match_all_sync(~0u, x, &all) + all;
}
__global__ void matched(unsigned* u, unsigned long long* l, float* f, double* d) {
  u[0] = matches(u[threadIdx.x]) + matches(l[threadIdx.x]) + matches(f[threadIdx.x]) + matches(d[threadIdx.x]);
}
#if __CUDA_ARCH__ >= 800
__global__ void reduced(unsigned* u, int* i) {
  u[threadIdx.x] = __reduce_add_sync(~0u, u[0]) + __reduce_min_sync(~0u, u[1]) + __reduce_max_sync(~0u, u[2]) +
                   __reduce_and_sync(~0u, u[3]) + __reduce_or_sync(~0u, u[4]) + __reduce_xor_sync(~0u, u[5]);
  i[threadIdx.x] = __reduce_add_sync(~0u, i[0]) + __reduce_min_sync(~0u, i[1]) + __reduce_max_sync(~0u, i[2]);
}
#endif
__global__ void blocks(int* i) {
  __syncthreads();
  i[0] = __syncthreads_count(i[1]) + __syncthreads_and(i[2]) + __syncthreads_or(i[3]);
  unsigned id = 0, mask = 0;
  asm volatile("mov.u32 %0, %%laneid; mov.u32 %1, %%lanemask_le;" : "=r"(id), "=r"(mask));
  i[1] = id + mask + clock() + static_cast<int>(clock64()) + warpSize;
  asm volatile("bar.sync 1, 64; bar.arrive 2, 64; barrier.sync 3;");
}
