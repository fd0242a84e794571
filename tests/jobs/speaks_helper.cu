__device__ int offset = 1000;
__device__ int helped(int x) { return offset + 2 * x; }
