#pragma once

// A loaded PTX module, ready to run: kernels, their parameter layout and resources, and the module's global image.
//
// Contract between the two halves of the software GPU: `exec` (PTX -> results) offers this header; the driver half
// (streams, memory, API) uses it. Nothing here knows the CUDA driver API.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "softgpu/mem/address_space.h"

namespace softgpu {

struct Dim3 {
  uint32_t x = 1, y = 1, z = 1;
};

struct ParamInfo {
  uint32_t offset = 0;  // bytes from the start of the parameter buffer
  uint32_t bytes = 0;
};

// What is known of a kernel without lowering it.
struct KernelHead {
  std::string name;  // as in the PTX, mangled
  std::vector<ParamInfo> params;
  uint32_t param_bytes = 0;               // end of the last parameter
  uint32_t max_threads_per_block = 1024;  // .maxntid where given
  Dim3 cluster{0, 0, 0};                  // .reqnctapercluster where given
  uint32_t ptx_version = 0;               // e.g. 80 for .target sm_80
  // Not empty for a kernel that cannot run: one line that names the first instruction that is not supported.
  std::string missing;
};

struct KernelInfo : KernelHead {
  uint32_t static_shared_bytes = 0;
  uint32_t local_bytes = 0;  // a thread
  uint32_t constant_bytes = 0;
  uint32_t registers = 0;  // invented: min(255, 16 + live)
};

enum class OpaqueKind : uint8_t { kNone, kTexture, kSurface, kSampler };

struct GlobalInfo {
  std::string name;
  uint64_t offset = 0;  // in the image
  uint64_t bytes = 0;
  bool constant = false;
  bool managed = false;                   // the host touches it at its address
  OpaqueKind opaque = OpaqueKind::kNone;  // otherwise the 8 bytes hold the handle of what is bound to it
};

// What went wrong in a kernel; the driver half turns it into the CUresult that a real GPU would report.
enum class FaultKind {
  kNone,
  kIllegalAddress,
  kMisalignedAddress,
  kIllegalInstruction,
  kAssert,
  kTrap,
  kInvalidPc,
  kCancelled,
  kStackOverflow
};

struct Fault {
  FaultKind kind = FaultKind::kNone;
  uint64_t address = 0;  // kIllegalAddress, kMisalignedAddress
  std::string where;     // "kernel saxpy, block (1,0,0), thread (3,0,0), line 41: ld.global.f32 ..." for the log
  bool ok() const { return kind == FaultKind::kNone; }
};

// One text of a program that may consist of several.
struct PtxUnit {
  std::string name;  // for messages; may be empty
  std::string text;
  bool any_target = false;  // .target may be above the device
};

enum class LoadFailure { kSyntax, kVersion, kTarget, kLink, kUndefined, kUnsupported };

struct LoadError {
  LoadFailure kind = LoadFailure::kSyntax;
  std::string text;  // one line
};

class Program {
 public:
  // Reads PTX text. What does not parse, or has kernels of which none can run, does not load: null, with *error set to
  // one line that names the place, e.g. "kernel attend, line 120: instruction 'wgmma.mma_async' is not supported".
  static std::shared_ptr<const Program> load(std::string_view ptx, std::string* error);

  // The same for units that are linked with each other. `capability` is the device's, e.g. 80; 0: any.
  static std::shared_ptr<const Program> load(std::vector<PtxUnit> units, unsigned capability, LoadError* error);
  // Only what a linker has to find out: that a unit parses, that units fit together.
  static bool check_unit(const PtxUnit& unit, unsigned capability, LoadError* error);
  static bool check(const std::vector<PtxUnit>& units, unsigned capability, LoadError* error);
  // Moves those members of libraries into `units` that define what is declared there, until nothing changes.
  static void pull_members(std::vector<PtxUnit>* units, std::vector<PtxUnit>* members);

  virtual ~Program() = default;
  virtual const std::vector<KernelHead>& kernels() const = 0;
  // Lines about kernels that cannot run, for the log: one for each instruction that is missing, with the first place.
  virtual const std::vector<std::string>& warnings() const = 0;
  // Lowers the kernel when that is wanted for the first time. Null where it cannot be, with *error set to one line.
  // The result lives as long as the program. Any thread may call this.
  virtual const KernelInfo* kernel(uint32_t index, std::string* error) const = 0;
  // The kernel whose address this is, or -1.
  virtual int64_t kernel_at(uint64_t address) const = 0;
  virtual const std::vector<GlobalInfo>& globals() const = 0;

  // All module-scope .global and .const variables lie in one image. The driver half places it at an address of its
  // choice (aligned to 4096) and fills it once with the initial values, pointers to other globals resolved.
  virtual uint64_t image_bytes() const = 0;
  virtual void fill_image(uint64_t image_address, std::byte* host) const = 0;
};

struct TextureTables;  // texture.h
class DeviceServices;

struct Launch {
  std::shared_ptr<const Program> program;
  uint32_t kernel = 0;  // index in program->kernels(), one for which program->kernel() gave no error
  Dim3 grid, block;
  uint32_t dynamic_shared_bytes = 0;
  const std::byte* params = nullptr;  // param_bytes of them; kept by the caller until run() returns
  uint64_t image_address = 0;
  const AddressSpace* memory = nullptr;
  const TextureTables* textures = nullptr;    // null: the kernel uses none
  bool cooperative = false;                   // all blocks resumable together (grid synchronisation)
  const std::atomic<bool>* cancel = nullptr;  // checked at back edges; may be null
  uint32_t quantum = 0;                       // instructions a warp runs before the next one does; 0: the usual 32
  Dim3 cluster;                               // blocks of one, in blocks; the grid is a multiple of it
  bool late_copies = false;                   // cp.async: bytes arrive when they are waited for
  uint64_t seed = 0;  // not 0: order of blocks and warps and their quanta are drawn from it; wants a pool of one thread
  uint32_t owner = 0;                  // whose grid it is, see pool.h
  class Checker* checker = nullptr;    // looks at every access (check.h); null: nobody does
  bool hold = false;                   // does not begin until it is released (pool.h): a kernel that hangs
  uint32_t stack_bytes = 1024;         // of a thread, for functions that call themselves
  DeviceServices* services = nullptr;  // null: printf goes to stdout, and there is no heap
};

// Threads that run blocks, shared by all devices of a process. `threads` 0: one a core.
class BlockPool {
 public:
  explicit BlockPool(unsigned threads);
  ~BlockPool();
  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// What a grid did.
struct Counters {
  uint64_t instructions = 0;  // of warps
  uint64_t bytes = 0;         // of device memory, where they are counted
};

// Runs a whole grid, with the caller among the threads that do; returns when its last block has ended or a fault
// stopped it. Blocks start in index order. May be called from many threads (streams) at once; their blocks share the
// pool. Results do not depend on the number of threads for programs without races.
Fault run(const Launch& launch, BlockPool& pool, Counters* counters = nullptr);

}  // namespace softgpu
