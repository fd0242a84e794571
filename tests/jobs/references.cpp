// Texture and surface references, bound once and bound anew, live for as long as the program runs: what a move must
// carry beside objects. Each round a kernel adds what the texture shows to what the surface holds.
//
//   references [--seconds S]      default 1

#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <vector>

namespace {

const char kModule[] = R"(
.version 8.0
.target sm_75
.address_size 64
.visible .global .texref image;
.visible .global .texref never_bound;
.visible .global .surfref canvas;
.visible .entry add() {
  .reg .b32 %i, %at, %zero, %old, %new, %t<4>;
  mov.u32 %i, %tid.x;
  mul.lo.u32 %at, %i, 4;
  mov.u32 %zero, 0;
  tex.1d.v4.u32.s32 {%t0, %t1, %t2, %t3}, [image, {%i}];
  suld.b.2d.b32.trap {%old}, [canvas, {%at, %zero}];
  add.u32 %new, %old, %t0;
  sust.b.2d.b32.trap [canvas, {%at, %zero}], {%new};
  ret;
}
)";

constexpr unsigned kCount = 64;

void check(CUresult result, const char* what, int line) {
  if (result == CUDA_SUCCESS) return;
  const char* name = "?";
  cuGetErrorName(result, &name);
  fprintf(stderr, "references: line %d: %s: %s (%d)\n", line, what, name, static_cast<int>(result));
  exit(1);
}
#define CHECK(call) check((call), #call, __LINE__)

double now_seconds() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

CUarray array_of(const std::vector<unsigned>& values, unsigned height) {
  const CUDA_ARRAY3D_DESCRIPTOR what = {
      kCount, height, 0, CU_AD_FORMAT_UNSIGNED_INT32, 1, height == 0 ? 0u : unsigned{CUDA_ARRAY3D_SURFACE_LDST}};
  CUarray array = nullptr;
  CHECK(cuArray3DCreate(&array, &what));
  CHECK(cuMemcpyHtoA(array, 0, values.data(), kCount * 4));
  return array;
}

}  // namespace

int main(int argc, char** argv) {
  double seconds = 1;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc) seconds = atof(argv[++i]);
  }
  CUdevice device = 0;
  CUcontext context = nullptr;
  CUmodule module = nullptr;
  CUfunction add = nullptr;
  CUtexref image = nullptr;
  CUsurfref canvas = nullptr;
  CHECK(cuInit(0));
  CHECK(cuDeviceGet(&device, 0));
  CHECK(cuDevicePrimaryCtxRetain(&context, device));
  CHECK(cuCtxSetCurrent(context));
  CHECK(cuModuleLoadData(&module, kModule));
  CHECK(cuModuleGetFunction(&add, module, "add"));
  CHECK(cuModuleGetTexRef(&image, module, "image"));
  CHECK(cuModuleGetSurfRef(&canvas, module, "canvas"));
  std::vector<unsigned> ones(kCount, 1), numbers(kCount), sums(kCount, 0), got(kCount);
  for (unsigned i = 0; i < kCount; i++) numbers[i] = i;
  const CUarray steady = array_of(ones, 0), rising = array_of(numbers, 0), target = array_of(sums, 1);
  CHECK(cuTexRefSetFlags(image, CU_TRSF_READ_AS_INTEGER));
  CHECK(cuSurfRefSetArray(canvas, target, 0));
  const double end = now_seconds() + seconds;
  int round = 0;
  do {
    // Bound anew every sixteenth round.
    const bool rises = round / 16 % 2 != 0;
    if (round % 16 == 0) {
      CHECK(cuTexRefSetArray(image, rises ? rising : steady, CU_TRSA_OVERRIDE_FORMAT));
    }
    CHECK(cuLaunchKernel(add, 1, 1, 1, kCount, 1, 1, 0, nullptr, nullptr, nullptr));
    CHECK(cuMemcpyAtoH(got.data(), target, 0, kCount * 4));
    for (unsigned i = 0; i < kCount; i++) {
      sums[i] += rises ? i : 1;
      if (got[i] != sums[i]) return fprintf(stderr, "round %d: %u, not %u, at %u\n", round, got[i], sums[i], i), 1;
    }
    round++;
  } while (now_seconds() < end);
  printf("references: %d rounds\n", round);
  return 0;
}
