#include "server/bundle.h"

#include <cstring>

#include "api/bundle.h"

namespace tide {
namespace {

constexpr size_t kLogBytes = 8192;

}  // namespace

OpenedBundle::~OpenedBundle() {
  if (link_ != nullptr) driver_.cuLinkDestroy(link_);
}

CUresult OpenedBundle::open(const std::vector<std::byte>& image, const void** loadable, std::string* message) {
  *loadable = image.data();
  BundleHeader header;
  if (image.size() < sizeof header) return CUDA_SUCCESS;
  memcpy(&header, image.data(), sizeof header);
  if (header.magic != kBundleMagic) return CUDA_SUCCESS;
  *message = "the bundle of images is damaged";
  if (header.bytes < sizeof header || header.bytes > image.size() || header.count == 0 ||
      header.count > kBundleEntriesMax + 1) {
    return CUDA_ERROR_INVALID_IMAGE;
  }
  std::vector<Part> parts;
  uint64_t at = sizeof header;
  for (uint32_t i = 0; i < header.count; ++i) {
    BundleEntry entry;
    if (header.bytes - at < sizeof entry) return CUDA_ERROR_INVALID_IMAGE;
    memcpy(&entry, image.data() + at, sizeof entry);
    at += sizeof entry;
    const uint64_t name_room = (uint64_t(entry.name_bytes) + 7) / 8 * 8;
    if (name_room > header.bytes - at || entry.bytes >= header.bytes - at - name_room) return CUDA_ERROR_INVALID_IMAGE;
    const auto* name = reinterpret_cast<const char*>(image.data() + at);
    parts.push_back({entry.type, std::string(name, entry.name_bytes), image.data() + at + name_room, entry.bytes});
    at += name_room + (entry.bytes + 8) / 8 * 8;
    if (at > header.bytes) return CUDA_ERROR_INVALID_IMAGE;
  }
  message->clear();
  if (BundleKind(header.kind) == BundleKind::kLink) return link(parts, loadable, message);
  for (size_t i = 1; i < parts.size(); ++i) units_.push_back(parts[i].data);
  units_.push_back(nullptr);
  wrapper_ = {kFatbinWrapperMagic, 2, parts[0].bytes == 0 ? nullptr : parts[0].data, units_.data()};
  *loadable = &wrapper_;
  return CUDA_SUCCESS;
}

CUresult OpenedBundle::link(const std::vector<Part>& parts, const void** loadable, std::string* message) {
  if (driver_.cuLinkCreate_v2 == nullptr) return CUDA_ERROR_NOT_SUPPORTED;
  std::vector<char> log(kLogBytes);
  CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void* values[] = {log.data(), reinterpret_cast<void*>(log.size() - 1)};
  CUresult result = driver_.cuLinkCreate_v2(2, options, values, &link_);
  if (result != CUDA_SUCCESS) return result;
  for (const Part& part : parts) {
    result = driver_.cuLinkAddData_v2(link_, CUjitInputType(part.type), const_cast<std::byte*>(part.data), part.bytes,
                                      part.name.empty() ? nullptr : part.name.c_str(), 0, nullptr, nullptr);
    if (result != CUDA_SUCCESS) break;
  }
  void* cubin = nullptr;
  size_t bytes = 0;
  if (result == CUDA_SUCCESS) result = driver_.cuLinkComplete(link_, &cubin, &bytes);
  if (result != CUDA_SUCCESS) *message = log.data();
  *loadable = cubin;
  return result;
}

}  // namespace tide
