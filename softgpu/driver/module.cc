#include "softgpu/driver/module.h"

#include <algorithm>
#include <cstring>

#include "base/log.h"
#include "softgpu/driver/driver.h"
#include "softgpu/driver/skipped.h"
#include "softgpu/fatbin/fatbin.h"

namespace softgpu {
namespace {

CUresult result_of(ImageStatus status) {
  switch (status) {
    case ImageStatus::kOk:
      return CUDA_SUCCESS;
    case ImageStatus::kInvalid:
      return CUDA_ERROR_INVALID_IMAGE;
    default:
      return CUDA_ERROR_NO_BINARY_FOR_GPU;
  }
}

void write_log(const JitLog& log, const std::string& message) {
  tide::log(tide::LogLevel::kWarning, "cannot load a GPU program: %s", message.c_str());
  write_jit_log(log, message);
}

// What the kernels of a module lack, not more than a screen of it.
void log_warnings(const std::vector<std::string>& lines) {
  constexpr size_t kMost = 20;
  for (size_t i = 0; i < lines.size() && i < kMost; ++i) {
    tide::log(tide::LogLevel::kWarning, "not every GPU kernel can run: %s", lines[i].c_str());
  }
  if (lines.size() > kMost) {
    tide::log(tide::LogLevel::kWarning, "not every GPU kernel can run: %zu further instructions are not supported",
              lines.size() - kMost);
  }
}

}  // namespace

void write_jit_log(const JitLog& log, const std::string& error) {
  if (log.error_buffer == nullptr || log.error_bytes == 0) return;
  const size_t bytes = std::min(error.size(), log.error_bytes - 1);
  std::memcpy(log.error_buffer, error.data(), bytes);
  log.error_buffer[bytes] = 0;
}

void clear_jit_log(const JitLog& log) {
  if (log.error_buffer != nullptr && log.error_bytes > 0) log.error_buffer[0] = 0;
  if (log.info_buffer != nullptr && log.info_bytes > 0) log.info_buffer[0] = 0;
}

CUresult result_of(LoadFailure failure) {
  return failure == LoadFailure::kVersion ? CUDA_ERROR_UNSUPPORTED_PTX_VERSION : CUDA_ERROR_INVALID_PTX;
}

std::vector<PtxUnit> units_of(ImageText image) {
  std::vector<PtxUnit> units;
  for (size_t i = 0; i < image.ptx.size(); ++i) {
    units.push_back({i < image.names.size() ? image.names[i] : std::string(), std::move(image.ptx[i]), image.chosen});
  }
  return units;
}

int Launchable::registers() const {
  const unsigned threads = std::max(1u, std::min<unsigned>(info().max_threads_per_block, kThreadsPerBlock));
  const unsigned most = static_cast<unsigned>(kRegistersPerMultiprocessor) / threads / 8 * 8;
  return static_cast<int>(std::clamp(info().registers, 1u, std::min(most, 255u)));
}

int Launchable::dynamic_shared_max() const {
  const int set = settings().dynamic_shared_max;
  if (set >= 0) return set;
  return kSharedPerBlock - static_cast<int>(std::min<uint32_t>(info().static_shared_bytes, kSharedPerBlock));
}

CUresult Code::lower(uint32_t index, const KernelInfo** info) const {
  std::string error;
  *info = program->kernel(index, &error);
  if (*info != nullptr) return CUDA_SUCCESS;
  tide::log(tide::LogLevel::kWarning, "cannot use a GPU kernel: %s", error.c_str());
  return program->kernels()[index].missing.empty() ? CUDA_ERROR_INVALID_PTX : CUDA_ERROR_NO_BINARY_FOR_GPU;
}

const GlobalInfo* Code::global(const std::string& name) const {
  for (const GlobalInfo& global : program->globals()) {
    if (global.name == name) return &global;
  }
  return nullptr;
}

bool Code::has_managed() const {
  const auto& globals = program->globals();
  return std::any_of(globals.begin(), globals.end(), [](const GlobalInfo& global) { return global.managed; });
}

CUresult load_code(const void* image, const JitLog& log, std::shared_ptr<Code>* code) {
  clear_jit_log(log);
  const unsigned capability = driver().devices[0]->profile.capability();
  ImageText text = read_image(image, capability, skips_machine_code());
  if (text.status != ImageStatus::kOk) {
    write_log(log, text.error);
    return result_of(text.status);
  }
  auto loaded = std::make_shared<Code>();
  loaded->machine_code = text.machine_code;
  LoadError error;
  loaded->program = Program::load(units_of(std::move(text)), capability, &error);
  if (loaded->program == nullptr) {
    write_log(log, error.text);
    return result_of(error.kind);
  }
  log_warnings(loaded->program->warnings());
  const auto& kernels = loaded->program->kernels();
  for (uint32_t i = 0; i < kernels.size(); ++i) loaded->kernel_index.emplace(kernels[i].name, i);
  loaded->settings = std::make_unique<KernelSettings[]>(kernels.size());
  *code = std::move(loaded);
  return CUDA_SUCCESS;
}

namespace {

CUresult place_globals(Context& context, const Code& code, uint64_t image_base, Range* image) {
  const uint64_t bytes = code.program->image_bytes();
  Memory& memory = driver().memory;
  const CUresult result = code.has_managed() ? memory.place_managed_image(bytes, image_base, context.device, image)
                                             : memory.place_image(context, bytes, image_base, image);
  if (result == CUDA_SUCCESS) code.program->fill_image(image->address, image->backing->host);
  return result;
}

}  // namespace

CUresult place_managed(Library& library) {
  if (library.managed_image.bytes != 0 || !library.code->has_managed()) return CUDA_SUCCESS;
  const Program& program = *library.code->program;
  Range& image = library.managed_image;
  const CUresult result =
      driver().memory.place_managed_image(program.image_bytes(), library.image_base, *driver().devices[0], &image);
  if (result == CUDA_SUCCESS) program.fill_image(image.address, image.backing->host);
  return result;
}

CUresult make_module(Context& context, std::shared_ptr<Code> code, uint64_t image_base, const Range* shared,
                     std::shared_ptr<Module>* module) {
  auto made = std::make_shared<Module>();
  made->context = &context;
  made->code = std::move(code);
  made->shares_image = shared != nullptr;
  if (shared != nullptr) {
    made->image = *shared;
  } else if (made->code->program->image_bytes() != 0) {
    const CUresult result = place_globals(context, *made->code, image_base, &made->image);
    if (result != CUDA_SUCCESS) return result;
  }
  made->handle = driver().modules.next();
  const size_t count = made->code->program->kernels().size();
  for (uint32_t i = 0; i < count; ++i) {
    const CUfunction handle = driver().functions.next();
    driver().functions.add(handle, std::make_shared<Function>(Function{made, i}));
    made->functions.push_back(handle);
  }
  driver().modules.add(made->handle, made);
  *module = std::move(made);
  return CUDA_SUCCESS;
}

void destroy_module(const std::shared_ptr<Module>& module) {
  if (driver().modules.remove(module->handle) == nullptr) return;  // went with its context
  for (const CUfunction function : module->functions) driver().functions.remove(function);
  if (module->image.bytes != 0 && !module->shares_image) driver().memory.free_image(module->image.address);
}

CUresult module_of(Library& library, Context& context, std::shared_ptr<Module>* module) {
  const std::lock_guard lock(library.mu);
  std::shared_ptr<Module>& made = library.modules[&context];
  if (made == nullptr) {
    CUresult result = place_managed(library);
    if (result != CUDA_SUCCESS) return result;
    const Range* shared = library.managed_image.bytes == 0 ? nullptr : &library.managed_image;
    result = make_module(context, library.code, library.image_base, shared, &made);
    if (result != CUDA_SUCCESS) return result;
    library.image_base = 0;
  }
  *module = made;
  return CUDA_SUCCESS;
}

CUresult find_head(CUfunction handle, Context* context, Launchable* launchable) {
  if (const auto function = driver().functions.find(handle)) {
    if (context != nullptr && function->module->context != context) return CUDA_ERROR_INVALID_HANDLE;
    *launchable = {function->module->code, function->index, function->module};
    return CUDA_SUCCESS;
  }
  const auto kernel = driver().kernels.find(reinterpret_cast<CUkernel>(handle));
  if (kernel == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  *launchable = {kernel->library->code, kernel->index, nullptr};
  return context == nullptr ? CUDA_SUCCESS : module_of(*kernel->library, *context, &launchable->module);
}

CUresult find_launchable(CUfunction handle, Context* context, Launchable* launchable) {
  const CUresult result = find_head(handle, context, launchable);
  return result != CUDA_SUCCESS ? result : launchable->code->lower(launchable->index, &launchable->lowered);
}

}  // namespace softgpu
