#pragma once

// Program::load with a chosen instruction-set level, for tests; and the insides that run() needs.

#include "softgpu/exec/handlers.h"
#include "softgpu/exec/warp.h"
#include "softgpu/lower/image.h"

namespace softgpu {

class LoadedProgram : public Program {
 public:
  static std::shared_ptr<const LoadedProgram> load(std::string_view ptx, IsaLevel level, std::string* error);

  const std::vector<KernelInfo>& kernels() const override { return kernels_; }
  const std::vector<GlobalInfo>& globals() const override { return image_.globals(); }
  uint64_t image_bytes() const override { return image_.bytes(); }
  void fill_image(uint64_t image_address, std::byte* host) const override { image_.fill(image_address, host); }
  const KernelCode& code(uint32_t kernel) const { return *code_[kernel]; }

 private:
  ImageLayout image_;
  std::vector<KernelInfo> kernels_;
  std::vector<std::unique_ptr<KernelCode>> code_;
};

}  // namespace softgpu
