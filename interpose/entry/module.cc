// Modules, libraries, kernels, globals.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <utility>

#include "api/composed/references.h"
#include "base/log.h"
#include "interpose/bundle.h"
#include "interpose/entry/entry.h"
#include "interpose/image.h"
#include "interpose/thread.h"

using namespace tide;

namespace {

// `bundle` keeps what had to be put together.
CUresult check_image(const void* code, Image* image, std::vector<std::byte>* bundle) {
  if (code == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *image = find_image(code);
  if (image->kind == ImageKind::kSeveralFatbins) {
    *bundle = bundle_of_wrapper(code);
    if (bundle->empty()) return CUDA_ERROR_INVALID_IMAGE;
    *image = {ImageKind::kBundle, bundle->data(), bundle->size()};
  }
  return image->kind == ImageKind::kUnknown ? CUDA_ERROR_INVALID_IMAGE : CUDA_SUCCESS;
}

// Reads a whole file, with a NUL behind it (PTX text).
CUresult read_file(const char* path, std::vector<std::byte>* bytes) {
  if (path == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return CUDA_ERROR_FILE_NOT_FOUND;
  struct stat info;
  bool ok = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  if (ok) bytes->resize(size_t(info.st_size) + 1);
  for (size_t at = 0; ok && at < size_t(info.st_size);) {
    const ssize_t n = read(fd, bytes->data() + at, size_t(info.st_size) - at);
    ok = n > 0;
    at += ok ? size_t(n) : 0;
  }
  close(fd);
  return ok ? CUDA_SUCCESS : CUDA_ERROR_INVALID_IMAGE;
}

// Where the caller wants the compiler's words, the load is waited for.
struct JitOptions {
  char* error_log = nullptr;
  uint32_t* error_log_size = nullptr;  // an entry of the caller's value array
  uint32_t error_log_bytes = 0;
};

JitOptions read_options(unsigned count, const CUjit_option* options, void** values) {
  JitOptions found;
  char* info_log = nullptr;  // there is nothing to tell
  bool room = false;
  for (unsigned i = 0; i < count && options != nullptr && values != nullptr; ++i) {
    if (options[i] == CU_JIT_ERROR_LOG_BUFFER) found.error_log = static_cast<char*>(values[i]);
    if (options[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES) {
      found.error_log_bytes = uint32_t(reinterpret_cast<uintptr_t>(values[i]));
      found.error_log_size = reinterpret_cast<uint32_t*>(&values[i]);
    }
    if (options[i] == CU_JIT_INFO_LOG_BUFFER) info_log = static_cast<char*>(values[i]);
    if (options[i] == CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES) room = std::exchange(values[i], nullptr) != nullptr;
  }
  if (info_log != nullptr && room) *info_log = 0;
  return found;
}

void write_log(const JitOptions& options, const std::string& text) {
  if (options.error_log == nullptr || options.error_log_bytes == 0) return;
  const size_t n = std::min<size_t>(text.size(), options.error_log_bytes - 1);
  memcpy(options.error_log, text.data(), n);
  options.error_log[n] = 0;
  if (options.error_log_size != nullptr) *options.error_log_size = uint32_t(n);
}

// What the program wrote itself may be wrong, and it wants to know at once. What a compiler made is believed.
bool waits_for_load(const Image& image, const JitOptions& options) {
  return options.error_log != nullptr || image.kind == ImageKind::kPtx;
}

std::string load_message(const Library& library, const Context& context) {
  const Instance* instance = library.instances[context.vgpu->number].load();
  return instance == nullptr ? "" : instance->message;
}

CUresult load_module(CUmodule* handle, const void* code, const JitOptions& options) {
  Entered e;
  Image image;
  TIDE_TRY(enter(&e));
  if (handle == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::vector<std::byte> bundle;
  TIDE_TRY(check_image(code, &image, &bundle));
  Library* module = e.process->modules.create();
  if (module == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  begin_library(*e.process, *module, image.data, image.bytes, false, e.context);
  e.process->modules.publish(module);
  CUresult r = load(*e.process, *module, *e.context);
  if (r == CUDA_SUCCESS && waits_for_load(image, options)) {
    r = await_load(*e.process, *module, *e.context);
    write_log(options, load_message(*module, *e.context));
  }
  if (r != CUDA_SUCCESS) {
    if (const auto ending = e.process->modules.end(module)) unload(*e.process, *module);
    return r;
  }
  *handle = handle_of<CUmodule>(*module);
  return CUDA_SUCCESS;
}

// The context in which a context-free library is looked at: the current one, else the first device's primary.
CUresult library_context(Entered* e) {
  e->process = process();
  if (e->process == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  if (current_context_handle() != 0) return enter(e);
  e->vgpu = e->process->devices[0];
  e->context = e->vgpu->primary;
  return activate(*e->context);
}

CUresult load_library(CUlibrary* handle, const void* code, bool keep, const JitOptions& options) {
  Process* p = process();
  Image image;
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  if (handle == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::vector<std::byte> bundle;
  TIDE_TRY(check_image(code, &image, &bundle));
  Library* library = p->libraries.create();
  if (library == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  begin_library(*p, *library, image.data, image.bytes, keep && bundle.empty(), nullptr);
  p->libraries.publish(library);
  // Nothing needs it yet; but where the thread has a GPU, that one will.
  CUresult r = CUDA_SUCCESS;
  Entered e;
  if (current_context_handle() != 0 && (r = enter(&e)) == CUDA_SUCCESS) r = load(*p, *library, *e.context);
  if (r == CUDA_SUCCESS && waits_for_load(image, options) && (r = library_context(&e)) == CUDA_SUCCESS) {
    r = await_load(*p, *library, *e.context);
    write_log(options, load_message(*library, *e.context));
  }
  if (r != CUDA_SUCCESS) {
    if (const auto ending = p->libraries.end(library)) unload(*p, *library);
    return r;
  }
  *handle = handle_of<CUlibrary>(*library);
  return CUDA_SUCCESS;
}

CUresult enter_library(const void* handle, Entered* e, Library** library) {
  TIDE_TRY(library_context(e));
  *library = find_library(*e->process, handle);
  if (*library == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if ((*library)->is_module()) {
    e->context = (*library)->context;
    e->vgpu = e->context->vgpu;
  }
  return CUDA_SUCCESS;
}

template <class Handle>
CUresult get_kernel(Handle* kernel_handle, const void* handle, const char* name) {
  Entered e;
  Library* library = nullptr;
  Kernel* kernel = nullptr;
  TIDE_TRY(enter_library(handle, &e, &library));
  if (kernel_handle == nullptr || name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  TIDE_TRY(find_kernel(*e.process, *library, *e.context, name, &kernel));
  *kernel_handle = handle_of<Handle>(*kernel);
  return CUDA_SUCCESS;
}

CUresult get_global(CUdeviceptr* address, size_t* bytes, const void* handle, const char* name, bool managed = false) {
  Entered e;
  Library* library = nullptr;
  uint64_t at = 0, size = 0;
  TIDE_TRY(enter_library(handle, &e, &library));
  if (name == nullptr || (address == nullptr && bytes == nullptr)) return CUDA_ERROR_INVALID_VALUE;
  bool is_managed = false;
  TIDE_TRY(find_global(*e.process, *library, *e.context, name, &at, &size, &is_managed));
  if (managed && !is_managed) return CUDA_ERROR_NOT_FOUND;
  if (address != nullptr) *address = at;
  if (bytes != nullptr) *bytes = size;
  return CUDA_SUCCESS;
}

CUresult count_kernels(unsigned* count, const void* handle) {
  Entered e;
  Library* library = nullptr;
  TIDE_TRY(enter_library(handle, &e, &library));
  if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
  TIDE_TRY(await_load(*e.process, *library, *e.context));
  *count = unsigned(library->kernels.size());
  return CUDA_SUCCESS;
}

template <class Handle>
CUresult list_kernels(Handle* kernels, unsigned count, const void* handle) {
  Entered e;
  Library* library = nullptr;
  TIDE_TRY(enter_library(handle, &e, &library));
  if (kernels == nullptr || count == 0) return CUDA_ERROR_INVALID_VALUE;
  TIDE_TRY(await_load(*e.process, *library, *e.context));
  for (unsigned i = 0; i < count && i < library->kernels.size(); ++i)
    kernels[i] = handle_of<Handle>(*library->kernels[i]);
  return CUDA_SUCCESS;
}

CUresult find_kernel_handle(const void* handle, Kernel** kernel) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  *kernel = p->kernels.find(handle);
  return *kernel != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult kernel_name(const char** name, const void* handle) {
  Kernel* kernel = nullptr;
  TIDE_TRY(find_kernel_handle(handle, &kernel));
  if (name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *name = kernel->name.c_str();
  return CUDA_SUCCESS;
}

CUresult param_info(const void* handle, size_t index, size_t* offset, size_t* bytes) {
  Kernel* kernel = nullptr;
  TIDE_TRY(find_kernel_handle(handle, &kernel));
  if (offset == nullptr || index >= kernel->params.size()) return CUDA_ERROR_INVALID_VALUE;
  *offset = kernel->params[index].offset;
  if (bytes != nullptr) *bytes = kernel->params[index].bytes;
  return CUDA_SUCCESS;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

CUresult cuModuleLoad(CUmodule* module, const char* path) {
  std::vector<std::byte> bytes;
  TIDE_TRY(read_file(path, &bytes));
  return load_module(module, bytes.data(), {});
}

CUresult cuModuleLoadData(CUmodule* module, const void* image) { return load_module(module, image, {}); }

CUresult cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned int count, CUjit_option* options,
                            void** values) {
  return load_module(module, image, read_options(count, options, values));
}

CUresult cuModuleLoadFatBinary(CUmodule* module, const void* image) { return load_module(module, image, {}); }

CUresult cuModuleUnload(CUmodule handle) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  Library* module = p->modules.find(handle);
  if (module == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  composed::forget_references(handle);
  if (const auto ending = p->modules.end(module)) unload(*p, *module);
  return CUDA_SUCCESS;
}

CUresult cuModuleGetLoadingMode(CUmoduleLoadingMode* mode) {
  if (mode == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const char* wanted = getenv("CUDA_MODULE_LOADING");
  *mode = wanted != nullptr && strcmp(wanted, "EAGER") == 0 ? CU_MODULE_EAGER_LOADING : CU_MODULE_LAZY_LOADING;
  return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  return get_kernel(function, module, name);
}
CUresult cuModuleGetFunctionCount(unsigned int* count, CUmodule module) { return count_kernels(count, module); }
CUresult cuModuleEnumerateFunctions(CUfunction* functions, unsigned int count, CUmodule module) {
  return list_kernels(functions, count, module);
}
CUresult cuModuleGetGlobal_v2(CUdeviceptr* address, size_t* bytes, CUmodule module, const char* name) {
  return get_global(address, bytes, module, name);
}

CUresult cuLibraryLoadData(CUlibrary* library, const void* code, CUjit_option* jit_options, void** jit_values,
                           unsigned int jit_count, CUlibraryOption* options, void** values, unsigned int count) {
  bool keep = false;
  for (unsigned i = 0; i < count && options != nullptr; ++i) {
    // The values may be absent: then naming the option sets it.
    if (options[i] == CU_LIBRARY_BINARY_IS_PRESERVED) keep = values == nullptr || values[i] != nullptr;
  }
  return load_library(library, code, keep, read_options(jit_count, jit_options, jit_values));
}

CUresult cuLibraryLoadFromFile(CUlibrary* library, const char* path, CUjit_option* jit_options, void** jit_values,
                               unsigned int jit_count, CUlibraryOption*, void**, unsigned int) {
  std::vector<std::byte> bytes;
  TIDE_TRY(read_file(path, &bytes));
  return load_library(library, bytes.data(), false, read_options(jit_count, jit_options, jit_values));
}

CUresult cuLibraryUnload(CUlibrary handle) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  Library* library = p->libraries.find(handle);
  if (library == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (const auto ending = p->libraries.end(library)) unload(*p, *library);
  return CUDA_SUCCESS;
}

CUresult cuLibraryGetKernel(CUkernel* kernel, CUlibrary library, const char* name) {
  return get_kernel(kernel, library, name);
}
CUresult cuLibraryGetKernelCount(unsigned int* count, CUlibrary library) { return count_kernels(count, library); }
CUresult cuLibraryEnumerateKernels(CUkernel* kernels, unsigned int count, CUlibrary library) {
  return list_kernels(kernels, count, library);
}

CUresult cuLibraryGetModule(CUmodule* module, CUlibrary library) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  if (p->libraries.find(library) == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (module == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *module = reinterpret_cast<CUmodule>(library);  // the module functions take both
  return CUDA_SUCCESS;
}

CUresult cuLibraryGetGlobal(CUdeviceptr* address, size_t* bytes, CUlibrary library, const char* name) {
  return get_global(address, bytes, library, name);
}

CUresult cuLibraryGetManaged(CUdeviceptr* address, size_t* bytes, CUlibrary library, const char* name) {
  return get_global(address, bytes, library, name, true);
}

CUresult cuLibraryGetUnifiedFunction(void**, CUlibrary library, const char*) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  return p->libraries.find(library) == nullptr ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_NOT_FOUND;
}

CUresult cuKernelGetFunction(CUfunction* function, CUkernel handle) {
  Kernel* kernel = nullptr;
  TIDE_TRY(find_kernel_handle(handle, &kernel));
  if (function == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *function = handle_of<CUfunction>(*kernel);
  return CUDA_SUCCESS;
}

CUresult cuKernelGetLibrary(CUlibrary* library, CUkernel handle) {
  Kernel* kernel = nullptr;
  TIDE_TRY(find_kernel_handle(handle, &kernel));
  if (library == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *library = handle_of<CUlibrary>(*kernel->library);
  return CUDA_SUCCESS;
}

CUresult cuFuncGetModule(CUmodule* module, CUfunction handle) {
  Kernel* kernel = nullptr;
  TIDE_TRY(find_kernel_handle(handle, &kernel));
  if (module == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *module = handle_of<CUmodule>(*kernel->library);
  return CUDA_SUCCESS;
}

CUresult cuKernelGetName(const char** name, CUkernel kernel) { return kernel_name(name, kernel); }
CUresult cuFuncGetName(const char** name, CUfunction function) { return kernel_name(name, function); }

CUresult cuKernelGetParamInfo(CUkernel kernel, size_t index, size_t* offset, size_t* bytes) {
  return param_info(kernel, index, offset, bytes);
}
CUresult cuFuncGetParamInfo(CUfunction function, size_t index, size_t* offset, size_t* bytes) {
  return param_info(function, index, offset, bytes);
}

CUresult cuFuncIsLoaded(CUfunctionLoadingState* state, CUfunction handle) {
  Kernel* kernel = nullptr;
  TIDE_TRY(find_kernel_handle(handle, &kernel));
  if (state == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *state = CU_FUNCTION_LOADING_STATE_LOADED;
  return CUDA_SUCCESS;
}

CUresult cuFuncLoad(CUfunction handle) {
  Kernel* kernel = nullptr;
  return find_kernel_handle(handle, &kernel);
}

}  // extern "C"
#pragma GCC visibility pop
