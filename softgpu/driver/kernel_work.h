#pragma once

// A kernel with its shape and a copy of its arguments, checked and ready to run.

#include <vector>

#include "softgpu/driver/module.h"
#include "softgpu/driver/work.h"

namespace softgpu {

struct Shape {
  Dim3 grid, block;
  size_t shared_bytes = 0;
  bool cooperative = false;
  Dim3 cluster{0, 0, 0};  // 0: as the kernel says, else one block
};

class KernelWork final : public Work {
 public:
  CUgraphNodeType type() const override { return CU_GRAPH_NODE_TYPE_KERNEL; }
  CUresult run(Context& context) const override;

  CUfunction function = nullptr;  // as the program named it
  Launchable kernel;
  Shape shape;
  std::vector<std::byte> params;              // as the kernel reads them
  std::vector<CUlaunchAttribute> attributes;  // as given; what changes something is in `shape`, too
};

// What launch attributes change. Hints about scheduling change nothing.
CUresult apply_attributes(const CUlaunchAttribute* attributes, unsigned count, Shape* shape);

// Fails as the launch would. `values` and `extra` as cuLaunchKernel takes them.
CUresult make_kernel_work(Context& context, CUfunction function, const Shape& shape, void** values, void** extra,
                          std::shared_ptr<KernelWork>* work);

}  // namespace softgpu
