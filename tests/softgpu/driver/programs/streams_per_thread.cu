// nvcc: -default-stream per-thread
// The same program, where the default stream of each thread is its own.
#include "streams.cu"
