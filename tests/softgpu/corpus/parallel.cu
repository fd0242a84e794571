// nvcc: --extended-lambda
// CUB: warps, blocks and the device.
#include <cub/cub.cuh>
#include <cuda/functional>
#include <cuda/std/functional>

__global__ void of_warps(int* x) {
  __shared__ cub::WarpReduce<int>::TempStorage reduce;
  __shared__ cub::WarpScan<int>::TempStorage scan;
  __shared__ cub::WarpMergeSort<int, 4, 32>::TempStorage sort;
  int y = cub::WarpReduce<int>(reduce).Sum(x[0]) + cub::WarpReduce<int>(reduce).Reduce(x[1], cuda::maximum<>());
  int sum = 0;
  cub::WarpScan<int>(scan).InclusiveSum(y, y, sum);
  cub::WarpScan<int>(scan).ExclusiveScan(y, y, 0, cuda::minimum<>());
  int keys[4] = {y, sum, x[2], x[3]};
  cub::WarpMergeSort<int, 4, 32>(sort).Sort(keys, [](int a, int b) { return a < b; });
  x[threadIdx.x] = keys[0] + keys[3];
}
__global__ void of_blocks(int* x, double* d) {
  using Load = cub::BlockLoad<int, 128, 4, cub::BLOCK_LOAD_TRANSPOSE>;
  using Store = cub::BlockStore<int, 128, 4, cub::BLOCK_STORE_WARP_TRANSPOSE>;
  using Sort = cub::BlockRadixSort<int, 128, 4, int>;
  using Scan = cub::BlockScan<int, 128, cub::BLOCK_SCAN_RAKING>;
  using Reduce = cub::BlockReduce<double, 128>;
  using Histogram = cub::BlockHistogram<unsigned char, 128, 4, 256>;
  using Discontinuity = cub::BlockDiscontinuity<int, 128>;
  __shared__ union {
    Load::TempStorage load;
    Store::TempStorage store;
    Sort::TempStorage sort;
    Scan::TempStorage scan;
    Reduce::TempStorage reduce;
    Histogram::TempStorage histogram;
    Discontinuity::TempStorage discontinuity;
  } room;
  __shared__ int bins[256];
  int v[4], w[4] = {};
  Load(room.load).Load(x, v);
  __syncthreads();
  Sort(room.sort).Sort(v, w);
  __syncthreads();
  Scan(room.scan).InclusiveSum(v, w);
  __syncthreads();
  int flags[4];
  Discontinuity(room.discontinuity).FlagHeads(flags, v, cuda::std::not_equal_to<>());
  __syncthreads();
  unsigned char bytes[4] = {static_cast<unsigned char>(v[0]), static_cast<unsigned char>(v[1]), 0, 1};
  Histogram(room.histogram).Histogram(bytes, bins);
  __syncthreads();
  d[0] = Reduce(room.reduce).Sum(d[threadIdx.x]);
  Store(room.store).Store(x, w);
  x[0] += flags[1] + bins[threadIdx.x];
}
void of_the_device(int* in, int* out, float* keys, double* sums, int n) {
  size_t bytes = 0;
  cub::DeviceReduce::Sum(nullptr, bytes, in, out, n);
  cub::DeviceScan::ExclusiveSum(nullptr, bytes, in, out, n);
  cub::DeviceRadixSort::SortPairs(nullptr, bytes, keys, keys, in, out, n);
  cub::DeviceSelect::If(nullptr, bytes, in, out, out, n, [] __device__(int x) { return x > 3; });
  cub::DeviceRunLengthEncode::Encode(nullptr, bytes, in, out, out, out, n);
}
