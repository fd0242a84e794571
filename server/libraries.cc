#include "server/libraries.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/limits.h"
#include "base/log.h"
#include "base/threads.h"
#include "server/bundle.h"

namespace tide {
namespace {
constexpr uint32_t kParamsMax = 4096;     // the driver allows 32764 bytes of parameters
constexpr uint32_t kKernelsMax = 262144;  // of one image
constexpr size_t kErrorLogBytes = 16384;
}  // namespace

void Libraries::start(uint64_t base, uint64_t bytes) {
  next_image_ = base;
  image_end_ = base + bytes;
}

CUresult Libraries::stage(uint64_t number, uint64_t total, uint64_t offset, const std::byte* data, uint64_t bytes) {
  if (total == 0 || total > kImageBytesMax || offset > total || bytes > total - offset) return CUDA_ERROR_INVALID_VALUE;
  Stage& stage = stages_[number];
  if (stage.bytes == nullptr) {
    if (staged_bytes_ + total > kStagedBytesMax) {
      stages_.erase(number);
      return CUDA_ERROR_OUT_OF_MEMORY;
    }
    staged_bytes_ += total;
    stage.bytes = std::make_shared<std::vector<std::byte>>(total + kImagePadding);
  }
  if (stage.bytes->size() != total + kImagePadding) return CUDA_ERROR_INVALID_VALUE;
  if (bytes != 0) memcpy(stage.bytes->data() + offset, data, bytes);
  stage.received += bytes;
  return CUDA_SUCCESS;
}

CUresult Libraries::stage_known(uint64_t number, uint64_t total, const Sha256& name) {
  if (total == 0 || total > kImageBytesMax || stages_.count(number) != 0) return CUDA_ERROR_INVALID_VALUE;
  auto bytes = std::make_shared<std::vector<std::byte>>();
  const bool there = staged_bytes_ + total <= kStagedBytesMax && store_.find(name, total, kImagePadding, bytes.get());
  if (there) put_stage(number, {std::move(bytes), total, true});
  return CUDA_SUCCESS;  // if not, the load will say so
}

void Libraries::keep(ImageBytes image) const {
  if (!store_.keeps(image->size() - kImagePadding)) return;
  const std::lock_guard lock(keeper_->mu);
  keeper_->images.push_back(std::move(image));
  if (keeper_->runs) return;
  Thread thread;
  keeper_->runs = thread.start([store = store_, keeper = keeper_] { keeper->run(store); }).ok();
  if (keeper_->runs) {
    thread.detach();
  } else {
    keeper_->images.clear();  // they will be sent again
  }
}

void Libraries::Keeper::run(const ImageStore& store) {
  std::unique_lock lock(mu);
  while (!images.empty()) {
    const ImageBytes image = std::move(images.front());
    images.pop_front();
    lock.unlock();
    store.keep(*image, image->size() - kImagePadding);
    lock.lock();
  }
  runs = false;
}

void Libraries::put_stage(uint64_t number, Stage stage) {
  staged_bytes_ += stage.bytes->size() - kImagePadding;
  stages_[number] = std::move(stage);
}

ImageBytes Libraries::take_stage(uint64_t number, bool* kept) {
  const auto found = stages_.find(number);
  if (found == stages_.end()) return nullptr;
  const Stage stage = found->second;
  if (kept != nullptr) *kept = stage.kept;
  const uint64_t total = stage.bytes->size() - kImagePadding;
  stages_.erase(found);
  staged_bytes_ -= total;
  return stage.received < total ? nullptr : stage.bytes;
}

CUresult Libraries::load(uint64_t number, ImageBytes image, const Library* like, std::string* message) {
  const Driver& driver = driver_.calls;
  if (libraries_.count(number) != 0 || libraries_.size() >= kLibrariesMax) return CUDA_ERROR_INVALID_VALUE;
  if (number >> 32 != 0) return CUDA_ERROR_INVALID_VALUE;
  Library library;
  library.image = std::move(image);
  if (const CUresult result = place(nullptr, like); result != CUDA_SUCCESS) return result;
  OpenedBundle bundle(driver);
  const void* loadable = nullptr;
  CUresult result = bundle.open(*library.image, &loadable, message);
  if (result == CUDA_SUCCESS) {
    // The compiler's words, for what is text.
    std::vector<char> words(kErrorLogBytes);
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void* values[] = {words.data(), reinterpret_cast<void*>(words.size())};
    result = driver.cuLibraryLoadData(&library.handle, loadable, options, values, 2, nullptr, nullptr, 0);
    if (result != CUDA_SUCCESS && words[0] != 0) message->assign(words.data(), strnlen(words.data(), words.size()));
  }
  if (result != CUDA_SUCCESS) {
    if (message->empty()) *message = "the image could not be loaded: " + error_text(driver, result);
    return result;
  }
  result = place(&library, like);
  if (result == CUDA_SUCCESS) result = look_inside(&library);
  if (result == CUDA_SUCCESS && like != nullptr && !reorder(&library, *like)) {
    *message = "the image has other kernels here than before";
    result = CUDA_ERROR_INVALID_IMAGE;
  }
  if (result != CUDA_SUCCESS) {
    driver.cuLibraryUnload(library.handle);
    return result;
  }
  libraries_[number] = std::move(library);
  return CUDA_SUCCESS;
}

// Before the load (null): says where the image shall lie. After it: where it does.
CUresult Libraries::place(Library* library, const Library* like) {
  if (driver_.set_image_base == nullptr || driver_.get_image_range == nullptr) return CUDA_SUCCESS;
  if (library == nullptr) {
    if (next_image_ >= image_end_) return CUDA_ERROR_OUT_OF_MEMORY;
    return driver_.set_image_base(like != nullptr && like->image_base != 0 ? like->image_base : next_image_);
  }
  CUdeviceptr base = 0;
  size_t bytes = 0;
  if (driver_.get_image_range(library->handle, &base, &bytes) != CUDA_SUCCESS || bytes == 0) return CUDA_SUCCESS;
  library->image_base = base;
  library->image_bytes = bytes;
  const uint64_t end = (base + bytes + kChunkBytes - 1) / kChunkBytes * kChunkBytes;
  if (end <= image_end_) next_image_ = std::max(next_image_, end);
  return CUDA_SUCCESS;
}

CUresult Libraries::look_inside(Library* library) const {
  const Driver& driver = driver_.calls;
  unsigned count = 0;
  CUresult result = driver.cuLibraryGetKernelCount(&count, library->handle);
  if (result != CUDA_SUCCESS) return result;
  if (count > kKernelsMax) return CUDA_ERROR_INVALID_IMAGE;
  std::vector<CUkernel> handles(count);
  if (count != 0) result = driver.cuLibraryEnumerateKernels(handles.data(), count, library->handle);
  library->kernels.resize(count);
  for (unsigned i = 0; i < count && result == CUDA_SUCCESS; ++i) result = look_at(handles[i], &library->kernels[i]);
  return result;
}

CUresult Libraries::look_at(CUkernel handle, KernelEntry* kernel) const {
  const Driver& driver = driver_.calls;
  kernel->handle = handle;
  const char* name = nullptr;
  if (const CUresult result = driver.cuKernelGetName(&name, handle); result != CUDA_SUCCESS) return result;
  kernel->name = name;
  for (uint32_t i = 0; i < kParamsMax; ++i) {
    size_t offset = 0, bytes = 0;
    if (driver.cuKernelGetParamInfo(handle, i, &offset, &bytes) != CUDA_SUCCESS) break;
    kernel->params.emplace_back(uint32_t(offset), uint32_t(bytes));
    kernel->param_bytes = std::max(kernel->param_bytes, uint32_t(offset + bytes));
  }
  int threads = 0;
  if (driver.cuKernelGetAttribute(&threads, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, handle, contexts_.device()) ==
      CUDA_SUCCESS) {
    kernel->max_threads_per_block = uint32_t(threads);
  }
  return CUDA_SUCCESS;
}

bool Libraries::reorder(Library* library, const Library& like) {
  if (like.kernels.empty() && like.image == nullptr) return true;
  if (library->kernels.size() != like.kernels.size()) return false;
  std::unordered_map<std::string, size_t> by_name;
  for (size_t i = 0; i < library->kernels.size(); ++i) by_name[library->kernels[i].name] = i;
  std::vector<KernelEntry> ordered;
  for (const KernelEntry& wanted : like.kernels) {
    const auto found = by_name.find(wanted.name);
    if (found == by_name.end()) return false;
    ordered.push_back(library->kernels[found->second]);
  }
  library->kernels = std::move(ordered);
  return true;
}

CUresult Libraries::unload(uint64_t number) {
  Library* library = find(number);
  if (library == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  const CUresult result = driver_.calls.cuLibraryUnload(library->handle);
  libraries_.erase(number);
  return result;
}

Library* Libraries::find(uint64_t number) {
  const auto found = libraries_.find(number);
  return found == libraries_.end() ? nullptr : &found->second;
}

const KernelEntry* Libraries::kernel(uint64_t wire) const {
  const auto found = libraries_.find(wire >> 32);
  if (found == libraries_.end()) return nullptr;
  const uint32_t index = uint32_t(wire);
  return index < found->second.kernels.size() ? &found->second.kernels[index] : nullptr;
}

CUfunction Libraries::function(uint64_t wire) const {
  const KernelEntry* entry = kernel(wire);
  CUfunction function = nullptr;
  if (entry == nullptr || driver_.calls.cuKernelGetFunction(&function, entry->handle) != CUDA_SUCCESS) return nullptr;
  return function;
}

CUresult Libraries::global(uint64_t number, const std::string& name, GlobalEntry* entry) {
  Library* library = find(number);
  if (library == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  CUdeviceptr address = 0;
  size_t bytes = 0;
  const Driver& driver = driver_.calls;
  const bool managed = driver.cuLibraryGetManaged != nullptr &&
                       driver.cuLibraryGetManaged(&address, &bytes, library->handle, name.c_str()) == CUDA_SUCCESS;
  if (!managed) {
    const CUresult result = driver.cuLibraryGetGlobal(&address, &bytes, library->handle, name.c_str());
    if (result != CUDA_SUCCESS) return result;
  }
  *entry = {name, address, bytes, managed};
  const auto same = [&](const GlobalEntry& known) { return known.address == address && known.name == name; };
  if (std::none_of(library->globals.begin(), library->globals.end(), same)) library->globals.push_back(*entry);
  return CUDA_SUCCESS;
}

bool Libraries::managed(uint64_t address, uint64_t bytes) const {
  for (const auto& [number, library] : libraries_) {
    for (const GlobalEntry& global : library.globals) {
      if (global.managed && address >= global.address && address - global.address <= global.bytes &&
          bytes <= global.bytes - (address - global.address)) {
        return true;
      }
    }
  }
  return false;
}

bool Libraries::covers(uint64_t address, uint64_t bytes) const {
  const auto inside = [&](uint64_t base, uint64_t size) {
    return address >= base && address - base <= size && bytes <= size - (address - base);
  };
  for (const auto& [number, library] : libraries_) {
    if (library.image_bytes != 0 && inside(library.image_base, library.image_bytes)) return true;
    for (const GlobalEntry& global : library.globals) {
      if (inside(global.address, global.bytes)) return true;
    }
  }
  return false;
}

}  // namespace tide
