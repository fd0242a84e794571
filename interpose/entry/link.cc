// cuLink*: the inputs stay here until the link is complete; then they travel as one image, which the driver below
// links. What cuLinkComplete returns is that image: loading it links it again, where the vGPU is then.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "interpose/bundle.h"
#include "interpose/entry/entry.h"
#include "interpose/image.h"

using namespace tide;

namespace {

struct LinkState {
  Bundle inputs{BundleKind::kLink};
  std::vector<std::byte> image;  // after cuLinkComplete
  char* error_log = nullptr;
  size_t error_log_bytes = 0;
};

struct Links {
  std::mutex mu;
  uint64_t next = 1;                                                   // guarded by mu
  std::unordered_map<uint64_t, std::shared_ptr<LinkState>> by_number;  // guarded by mu
};

Links& links() {
  static Links* const kLinks = new Links;
  return *kLinks;
}

constexpr uint64_t kHandleBase = uint64_t(0x7d) << 40;

std::shared_ptr<LinkState> find_link(CUlinkState handle) {
  const std::lock_guard lock(links().mu);
  const auto found = links().by_number.find(reinterpret_cast<uint64_t>(handle) - kHandleBase);
  return found == links().by_number.end() ? nullptr : found->second;
}

bool read_whole(const char* path, std::vector<std::byte>* bytes) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  struct stat info;
  bool ok = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  if (ok) bytes->resize(size_t(info.st_size));
  for (size_t at = 0; ok && at < bytes->size();) {
    const ssize_t n = read(fd, bytes->data() + at, bytes->size() - at);
    ok = n > 0;
    at += ok ? size_t(n) : 0;
  }
  close(fd);
  return ok;
}

CUresult add_input(CUlinkState handle, CUjitInputType type, const void* data, size_t bytes, const char* name) {
  const auto link = find_link(handle);
  if (link == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (data == nullptr || bytes == 0 || !link->image.empty() || type < 0 || type >= CU_JIT_NUM_INPUT_TYPES) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  link->inputs.add(uint32_t(type), name == nullptr ? "" : name, data, bytes);
  return CUDA_SUCCESS;
}

// Links at the worker, to hear whether it can be done.
CUresult try_link(const Entered& e, LinkState& link) {
  Library* trial = e.process->libraries.create();
  if (trial == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  begin_library(*e.process, *trial, link.image.data(), link.image.size(), false, nullptr);
  e.process->libraries.publish(trial);
  CUresult r = load(*e.process, *trial, *e.context);
  if (r == CUDA_SUCCESS) r = await_load(*e.process, *trial, *e.context);
  const Instance* instance = trial->instances[e.vgpu->number].load();
  if (r != CUDA_SUCCESS && instance != nullptr && link.error_log != nullptr && link.error_log_bytes != 0) {
    const size_t n = std::min(instance->message.size(), link.error_log_bytes - 1);
    memcpy(link.error_log, instance->message.data(), n);
    link.error_log[n] = 0;
  }
  if (const auto ending = e.process->libraries.end(trial)) unload(*e.process, *trial);
  return r;
}

}  // namespace

#pragma GCC visibility push(default)

extern "C" CUresult cuLinkCreate_v2(unsigned int count, CUjit_option* options, void** values, CUlinkState* out) {
  Entered e;
  TIDE_TRY(enter(&e));
  if (out == nullptr || (count != 0 && (options == nullptr || values == nullptr))) return CUDA_ERROR_INVALID_VALUE;
  auto link = std::make_shared<LinkState>();
  for (unsigned i = 0; i < count; ++i) {
    const auto number = size_t(reinterpret_cast<uintptr_t>(values[i])) & 0xffffffff;
    char* const text = static_cast<char*>(values[i]);
    if (options[i] == CU_JIT_ERROR_LOG_BUFFER) link->error_log = text;
    if (options[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES) link->error_log_bytes = number;
    if (options[i] == CU_JIT_INFO_LOG_BUFFER && text != nullptr) *text = 0;
  }
  if (link->error_log != nullptr && link->error_log_bytes != 0) *link->error_log = 0;
  const std::lock_guard lock(links().mu);
  const uint64_t number = links().next++;
  links().by_number[number] = std::move(link);
  *out = reinterpret_cast<CUlinkState>(kHandleBase + number);
  return CUDA_SUCCESS;
}

extern "C" CUresult cuLinkAddData_v2(CUlinkState link, CUjitInputType type, void* data, size_t bytes, const char* name,
                                     unsigned int, CUjit_option*, void**) {
  return add_input(link, type, data, bytes, name);
}

extern "C" CUresult cuLinkAddFile_v2(CUlinkState link, CUjitInputType type, const char* path, unsigned int,
                                     CUjit_option*, void**) {
  std::vector<std::byte> bytes;
  if (path == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!read_whole(path, &bytes)) return CUDA_ERROR_FILE_NOT_FOUND;
  return add_input(link, type, bytes.data(), bytes.size(), path);
}

extern "C" CUresult cuLinkComplete(CUlinkState handle, void** cubin, size_t* bytes) {
  Entered e;
  TIDE_TRY(enter(&e));
  const auto link = find_link(handle);
  if (link == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (cubin == nullptr || link->inputs.empty() || !link->image.empty()) return CUDA_ERROR_INVALID_VALUE;
  link->image = link->inputs.take();
  TIDE_TRY(try_link(e, *link));
  *cubin = link->image.data();
  if (bytes != nullptr) *bytes = link->image.size();
  return CUDA_SUCCESS;
}

extern "C" CUresult cuLinkDestroy(CUlinkState handle) {
  const std::lock_guard lock(links().mu);
  const auto number = reinterpret_cast<uint64_t>(handle) - kHandleBase;
  return links().by_number.erase(number) != 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

#pragma GCC visibility pop
