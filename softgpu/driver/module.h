#pragma once

// Loaded images. A library is one PTX program, without a context; a module is its globals in one context. Kernels are
// the library's, functions the module's; both name the same code and share its settings.

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "softgpu/driver/context.h"
#include "softgpu/driver/memory.h"
#include "softgpu/driver/profile.h"
#include "softgpu/exec/program.h"

namespace softgpu {

// What cuFuncSetAttribute and cuKernelSetAttribute change.
struct KernelSettings {
  std::atomic<int> dynamic_shared_max{-1};  // -1: what the static part leaves of the usual limit
  std::atomic<int> carveout{-1};
  std::atomic<bool> large_clusters{false};  // more than eight blocks
};

// The code of one image.
struct Code {
  bool machine_code = false;  // the program only names the kernels; launching one is CUDA_ERROR_NO_BINARY_FOR_GPU
  std::shared_ptr<const Program> program;
  std::unordered_map<std::string, uint32_t> kernel_index;
  std::unique_ptr<KernelSettings[]> settings;

  // Lowers the kernel at first use. CUDA_ERROR_NO_BINARY_FOR_GPU where it needs an instruction that is not supported,
  // CUDA_ERROR_INVALID_PTX where its text turns out to be wrong.
  CUresult lower(uint32_t index, const KernelInfo** info) const;
  const GlobalInfo* global(const std::string& name) const;
  bool has_managed() const;
};

struct Module {
  Context* context = nullptr;
  CUmodule handle = nullptr;
  std::shared_ptr<Code> code;
  Range image;                        // bytes 0: no globals
  bool shares_image = false;          // the library's, with managed variables
  std::vector<CUfunction> functions;  // one a kernel
};

struct Library {
  CUlibrary handle = nullptr;
  std::shared_ptr<Code> code;
  std::vector<CUkernel> kernels;
  std::mutex mu;
  uint64_t image_base = 0;                                        // for the first module; guarded by mu
  Range managed_image;                                            // of all contexts; bytes 0: none; guarded by mu
  std::unordered_map<Context*, std::shared_ptr<Module>> modules;  // guarded by mu
};

struct Kernel {
  std::shared_ptr<Library> library;
  uint32_t index = 0;
};

struct Function {
  std::shared_ptr<Module> module;
  uint32_t index = 0;
};

// Where a load writes what went wrong, from its options.
struct JitLog {
  char* error_buffer = nullptr;
  size_t error_bytes = 0;
  char* info_buffer = nullptr;
  size_t info_bytes = 0;
};

// Writes what was found into the buffers, cut where they end.
void write_jit_log(const JitLog& log, const std::string& error);
void clear_jit_log(const JitLog& log);
CUresult result_of(LoadFailure failure);

struct ImageText;
std::vector<PtxUnit> units_of(ImageText image);
CUresult load_code(const void* image, const JitLog& log, std::shared_ptr<Code>* code);
// `shared`: the image to use, when there is one already.
CUresult make_module(Context& context, std::shared_ptr<Code> code, uint64_t image_base, const Range* shared,
                     std::shared_ptr<Module>* module);
// Places the globals of a library with managed variables, which has them without a context. Requires: library.mu.
CUresult place_managed(Library& library);
void destroy_module(const std::shared_ptr<Module>& module);
// The library's module in a context, made when it is not there yet.
CUresult module_of(Library& library, Context& context, std::shared_ptr<Module>* module);

// A kernel that can be launched in a context, from either kind of handle.
struct Launchable {
  std::shared_ptr<Code> code;
  uint32_t index = 0;
  std::shared_ptr<Module> module;       // its globals in the context; null where they were not asked for
  const KernelInfo* lowered = nullptr;  // of find_launchable

  const KernelHead& head() const { return code->program->kernels()[index]; }
  const KernelInfo& info() const { return *lowered; }
  KernelSettings& settings() const { return code->settings[index]; }
  int dynamic_shared_max() const;
  int registers() const;  // so few that the largest allowed block always fits
};
// The kernel behind a handle, lowered. `context` null: whatever the handle knows, no module is made for a kernel.
CUresult find_launchable(CUfunction function, Context* context, Launchable* launchable);
// The same without lowering it: only head() and settings() of the result may be asked.
CUresult find_head(CUfunction function, Context* context, Launchable* launchable);

}  // namespace softgpu
