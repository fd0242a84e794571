#pragma once

// Program::load with a chosen instruction-set level, for tests; and the insides that run() needs.

#include <atomic>
#include <mutex>

#include "softgpu/exec/handlers.h"
#include "softgpu/exec/warp.h"
#include "softgpu/lower/image.h"

namespace softgpu {

class LoadedProgram : public Program {
 public:
  static std::shared_ptr<const LoadedProgram> load(std::string_view ptx, IsaLevel level, std::string* error);
  static std::shared_ptr<const LoadedProgram> load(std::vector<PtxUnit> units, unsigned capability, IsaLevel level,
                                                   LoadError* error);

  const std::vector<KernelHead>& kernels() const override { return heads_; }
  const std::vector<std::string>& warnings() const override { return warnings_; }
  const KernelInfo* kernel(uint32_t index, std::string* error) const override;
  int64_t kernel_at(uint64_t address) const override;
  const std::vector<GlobalInfo>& globals() const override { return image_.globals(); }
  uint64_t image_bytes() const override { return image_.bytes(); }
  void fill_image(uint64_t image_address, std::byte* host) const override { image_.fill(image_address, host); }
  // Of a kernel that has been lowered.
  const KernelCode& code(uint32_t index) const { return slots_[index].lowered.load(std::memory_order_acquire)->code; }

 private:
  struct Lowered {
    KernelInfo info;
    KernelCode code;
  };
  struct Slot {
    std::atomic<const Lowered*> lowered{nullptr};
    std::unique_ptr<const Lowered> owner;  // guarded by mu_, as is what follows
    std::string error;                     // why it could not be lowered
  };

  IsaLevel level_ = IsaLevel::kV2;
  std::unique_ptr<const ptx::Module> module_;
  ImageLayout image_;
  std::vector<KernelHead> heads_;
  std::vector<uint32_t> functions_;  // of each kernel, in the module
  std::vector<std::string> warnings_;
  mutable std::mutex mu_;
  std::unique_ptr<Slot[]> slots_;
};

}  // namespace softgpu
