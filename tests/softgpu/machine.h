#pragma once

// A few megabytes of device memory and a pool, for tests that run PTX without a driver.

#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"
#include "softgpu/exec/load.h"

namespace softgpu {

class Machine {
 public:
  static constexpr uint64_t kBytes = 8 * kChunkBytes;

  explicit Machine(unsigned threads = 1) : pool_(threads) {
    void* p = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(p, MAP_FAILED);
    host_ = static_cast<std::byte*>(p);
    space_.map(kWindowBase, host_, kBytes);
  }
  ~Machine() { munmap(host_, kBytes); }

  // Device address of fresh zeroed memory.
  uint64_t allocate(uint64_t bytes) {
    const uint64_t at = next_;
    next_ += (bytes + 255) / 256 * 256;
    EXPECT_LE(next_, kBytes);
    return kWindowBase + at;
  }
  template <class T>
  uint64_t upload(const std::vector<T>& values) {
    const uint64_t address = allocate(values.size() * sizeof(T));
    std::memcpy(host(address), values.data(), values.size() * sizeof(T));
    return address;
  }
  template <class T>
  std::vector<T> download(uint64_t address, size_t count) const {
    std::vector<T> out(count);
    std::memcpy(out.data(), host_ + (address - kWindowBase), count * sizeof(T));
    return out;
  }
  std::byte* host(uint64_t address) { return host_ + (address - kWindowBase); }
  AddressSpace& space() { return space_; }
  BlockPool& pool() { return pool_; }

  void load(std::string_view ptx, IsaLevel level = best_isa_level()) {
    std::string error;
    program_ = LoadedProgram::load(ptx, level, &error);
    ASSERT_NE(program_, nullptr) << error;
    for (uint32_t i = 0; i < program_->kernels().size(); ++i) {
      ASSERT_NE(program_->kernel(i, &error), nullptr) << error;
    }
    launch_ = {};
    launch_.program = program_;
    launch_.memory = &space_;
    launch_.image_address = allocate(4096 + program_->image_bytes());
    launch_.image_address = (launch_.image_address + 4095) / 4096 * 4096;
    allocate(4096);
    program_->fill_image(launch_.image_address, host(launch_.image_address));
  }
  const LoadedProgram& program() const { return *program_; }
  Launch& launch() { return launch_; }

  // Eight-byte parameters, in order.
  Fault run(std::string_view kernel, Dim3 grid, Dim3 block, std::vector<uint64_t> params,
            Counters* counters = nullptr) {
    launch_.kernel = ~uint32_t{0};
    if (program_ == nullptr) return {};
    for (uint32_t i = 0; i < program_->kernels().size(); ++i) {
      if (program_->kernels()[i].name == kernel) launch_.kernel = i;
    }
    EXPECT_NE(launch_.kernel, ~uint32_t{0}) << kernel;
    launch_.grid = grid;
    launch_.block = block;
    launch_.params = reinterpret_cast<const std::byte*>(params.data());
    return softgpu::run(launch_, pool_, counters);
  }

 private:
  AddressSpace space_;
  BlockPool pool_;
  std::byte* host_ = nullptr;
  uint64_t next_ = 0;
  std::shared_ptr<const LoadedProgram> program_;
  Launch launch_;
};

inline std::string with_header(const std::string& body) {
  return ".version 8.3\n.target sm_80\n.address_size 64\n" + body;
}

// Levels that this machine can run.
inline std::vector<IsaLevel> levels() {
  std::vector<IsaLevel> out;
  for (const IsaLevel level : {IsaLevel::kV2, IsaLevel::kV3, IsaLevel::kV4}) {
    if (isa_level_runs_here(level)) out.push_back(level);
  }
  return out;
}

}  // namespace softgpu
