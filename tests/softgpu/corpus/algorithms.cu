// nvcc: --extended-lambda
// Thrust.
#include <thrust/device_vector.h>
#include <thrust/reduce.h>
#include <thrust/scan.h>
#include <thrust/sort.h>
#include <thrust/transform.h>

void use(thrust::device_vector<int>& a, thrust::device_vector<float>& b) {
  thrust::sort(a.begin(), a.end());
  thrust::sort(b.begin(), b.end(), thrust::greater<float>());
  thrust::inclusive_scan(a.begin(), a.end(), a.begin());
  b[0] = thrust::reduce(b.begin(), b.end(), 0.0f, thrust::maximum<float>());
  thrust::transform(a.begin(), a.end(), b.begin(), [] __device__(int x) { return 2.0f * x; });
}
