#include "softgpu/fatbin/fatbin.h"

#include <elf.h>
#include <lz4.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <set>
#include <string_view>

#include "api/fatbin.h"
#include "softgpu/fatbin/machine_code.h"
#include "softgpu/fatbin/object.h"

namespace softgpu {
namespace {

using tide::FatbinEntry;
using tide::FatbinHeader;
using tide::FatbinWrapper;

constexpr uint64_t kTextBytesMax = 1u << 30;    // the largest known uncompressed image is 105 MB
constexpr uint64_t kNoEnd = uint64_t{1} << 40;  // where only the headers know the length
constexpr size_t kUnitsMax = 65536;             // of one -rdc program

struct Candidate {
  FatbinEntry header;
  const char* payload;
};

template <typename T>
T load(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

ImageText failure(ImageStatus status, std::string error) {
  ImageText image;
  image.status = status;
  image.error = std::move(error);
  return image;
}

std::string sm(unsigned capability) { return "sm_" + std::to_string(capability); }

std::string no_ptx_error(const std::string& targets, const std::vector<std::string>& kernels) {
  std::string which;
  if (!kernels.empty()) which = " (" + kernels[0];
  if (kernels.size() > 1) which += " and " + std::to_string(kernels.size() - 1) + " more kernels";
  if (!which.empty()) which += ")";
  return "only machine code for " + targets + which +
         ", no PTX: build with -arch=compute_XX or the shorthand -arch=sm_XX, which keep the PTX";
}

bool uncompress(const FatbinEntry& header, const char* payload, std::string* text) {
  if (header.text_bytes > kTextBytesMax || header.compressed_bytes > header.payload_bytes) return false;
  text->resize(header.text_bytes);
  if (header.flags & tide::kFatbinZstd) {
    const size_t bytes = ZSTD_decompress(text->data(), text->size(), payload, header.compressed_bytes);
    return ZSTD_isError(bytes) == 0 && bytes == text->size();
  }
  const int bytes = LZ4_decompress_safe(payload, text->data(), static_cast<int>(header.compressed_bytes),
                                        static_cast<int>(text->size()));
  return bytes >= 0 && static_cast<size_t>(bytes) == text->size();
}

bool read_payload(const Candidate& candidate, std::string* bytes) {
  if (candidate.header.flags & (tide::kFatbinZstd | tide::kFatbinLz4))
    return uncompress(candidate.header, candidate.payload, bytes);
  bytes->assign(candidate.payload, candidate.header.payload_bytes);
  return true;
}

bool read_text(const Candidate& candidate, std::string* text) {
  if (!read_payload(candidate, text)) return false;
  text->resize(std::min(text->size(), std::strlen(text->c_str())));
  return true;
}

bool better(const Candidate& a, const Candidate* b) {
  if (b == nullptr) return true;
  if (a.header.capability != b->header.capability) return a.header.capability > b->header.capability;
  return (b->header.flags & tide::kFatbinExactly) != 0 && (a.header.flags & tide::kFatbinExactly) == 0;
}

std::string join(const std::set<unsigned>& capabilities) {
  std::string text;
  for (const unsigned capability : capabilities) text += (text.empty() ? "" : ", ") + sm(capability);
  return text;
}

// The outline when such a device runs it (or `any`), else what is missing, with the names of its kernels.
ImageText read_machine_code(const char* elf, size_t bytes, const std::string& targets, bool runs) {
  std::vector<std::string> kernels;
  std::string outline = outline_of_machine_code(elf, bytes, &kernels);
  if (!runs || outline.empty()) return failure(ImageStatus::kNoPtx, no_ptx_error(targets, kernels));
  ImageText image;
  image.status = ImageStatus::kOk;
  image.machine_code = true;
  image.ptx.push_back(std::move(outline));
  return image;
}

// `bytes` is how many there are at most.
ImageText read_fatbin(const char* data, uint64_t bytes, unsigned capability, bool any_machine_code) {
  if (bytes < sizeof(FatbinHeader) || !readable(data, sizeof(FatbinHeader))) {
    return failure(ImageStatus::kInvalid, "the fatbinary ends within its header");
  }
  const auto header = load<FatbinHeader>(data);
  if (header.magic != tide::kFatbinMagic || header.header_bytes < sizeof(header)) {
    return failure(ImageStatus::kInvalid, "not a fatbinary");
  }
  if (header.header_bytes > bytes || header.entries_bytes > bytes - header.header_bytes ||
      !readable(data, header.header_bytes + header.entries_bytes)) {
    return failure(ImageStatus::kInvalid, "the fatbinary is shorter than its header says");
  }
  const char* at = data + header.header_bytes;
  uint64_t left = header.entries_bytes;
  Candidate best{}, code{}, newer{};
  bool found = false, newer_found = false, code_found = false, code_runs = false;
  std::set<unsigned> machine_code, too_new;
  while (left >= sizeof(FatbinEntry)) {
    const auto entry = load<FatbinEntry>(at);
    const bool runs = fatbin_entry_runs(entry, capability);
    if (entry.header_bytes < sizeof(entry) || entry.header_bytes > left ||
        entry.payload_bytes > left - entry.header_bytes) {
      return failure(ImageStatus::kInvalid, "an entry of the fatbinary is longer than the fatbinary");
    }
    const Candidate candidate{entry, at + entry.header_bytes};
    if (entry.kind == tide::kFatbinElf) {
      machine_code.insert(entry.capability);
      if (!code_found || (runs && !code_runs) || (runs == code_runs && better(candidate, &code))) {
        code = candidate;
        code_runs = runs;
      }
      code_found = true;
    }
    if (entry.kind == tide::kFatbinPtx && !runs) {
      too_new.insert(entry.capability);
      if (!newer_found || !better(candidate, &newer)) newer = candidate;
      newer_found = true;
    }
    if (entry.kind == tide::kFatbinPtx && runs && better(candidate, found ? &best : nullptr)) {
      best = candidate;
      found = true;
    }
    at += entry.header_bytes + entry.payload_bytes;
    left -= entry.header_bytes + entry.payload_bytes;
  }
  // Where the device has machine code, PTX for a newer one was made from the same source and does the same.
  if (!found && newer_found && code_runs) {
    best = newer;
    found = true;
  }
  if (found) {
    ImageText image;
    image.ptx.resize(1);
    if (!read_text(best, &image.ptx[0])) return failure(ImageStatus::kInvalid, "the fatbinary's PTX does not unpack");
    image.status = ImageStatus::kOk;
    image.chosen = true;
    return image;
  }
  if (code_found && (code_runs || any_machine_code || too_new.empty())) {
    std::string elf;
    if (!read_payload(code, &elf))
      return failure(ImageStatus::kInvalid, "the fatbinary's machine code does not unpack");
    return read_machine_code(elf.data(), elf.size(), join(machine_code), code_runs || any_machine_code);
  }
  if (!too_new.empty()) {
    return failure(ImageStatus::kTooNew, "PTX only for " + join(too_new) + ", but the device is " + sm(capability) +
                                             ": build with -arch=compute_" + std::to_string(capability) + " or lower");
  }
  return failure(ImageStatus::kNoPtx, "the fatbinary has no entries");
}

ImageText read_wrapper(const char* data, unsigned capability, bool any_machine_code) {
  if (!readable(data, sizeof(FatbinWrapper))) return failure(ImageStatus::kInvalid, "half a fatbinary wrapper");
  const auto wrapper = load<FatbinWrapper>(data);
  if (wrapper.version != 1 && wrapper.version != 2) {
    return failure(ImageStatus::kInvalid, "fatbinary wrapper of version " + std::to_string(wrapper.version));
  }
  ImageText image = failure(ImageStatus::kInvalid, "the fatbinary wrapper is empty");
  if (wrapper.fatbin != nullptr) {
    image = read_fatbin(static_cast<const char*>(wrapper.fatbin), kNoEnd, capability, any_machine_code);
  }
  const bool complete = image.status == ImageStatus::kOk && !image.machine_code;
  if (wrapper.version == 1 || wrapper.more == nullptr || complete) return image;
  // The linked machine code is in the first fatbinary; the PTX stayed with the units it was linked from.
  const auto* unit = static_cast<const void* const*>(wrapper.more);
  ImageText linked;
  for (size_t i = 0; i < kUnitsMax && readable(unit + i, sizeof(*unit)) && unit[i] != nullptr; ++i) {
    ImageText one = read_fatbin(static_cast<const char*>(unit[i]), kNoEnd, capability, false);
    if (one.status != ImageStatus::kOk || one.machine_code) return image.status == ImageStatus::kOk ? image : one;
    linked.ptx.push_back(std::move(one.ptx[0]));
  }
  if (linked.ptx.empty()) return image;
  linked.status = ImageStatus::kOk;
  linked.chosen = true;
  return linked;
}

ImageText read_elf(std::string_view file, unsigned capability, bool any_machine_code) {
  ImageText image;
  if (read_linked_image(file, &image)) return image;
  if (is_host_object(file)) return read_object(file, capability);
  const unsigned made_for = capability_of_machine_code(file.data());
  FatbinEntry as_entry{};
  as_entry.kind = tide::kFatbinElf;
  as_entry.capability = made_for;
  return read_machine_code(file.data(), file.size(), sm(made_for),
                           any_machine_code || fatbin_entry_runs(as_entry, capability));
}

// PTX begins with comments, blank lines and the .version directive.
bool looks_like_ptx(const char* text) {
  while (*text != 0) {
    if (std::isspace(static_cast<unsigned char>(*text))) {
      ++text;
    } else if (std::strncmp(text, "//", 2) == 0) {
      while (*text != 0 && *text != '\n') ++text;
    } else if (std::strncmp(text, "/*", 2) == 0) {
      const char* end = std::strstr(text + 2, "*/");
      if (end == nullptr) return false;
      text = end + 2;
    } else {
      return std::strncmp(text, ".version", 8) == 0;
    }
  }
  return false;
}

}  // namespace

ImageText read_image(const void* image, unsigned capability, bool any_machine_code) {
  const auto* data = static_cast<const char*>(image);
  // Byte by byte, so that a short text is not read past its end.
  if (std::strncmp(data, ELFMAG, SELFMAG) == 0) {
    const uint64_t bytes = elf_bytes(data);
    if (bytes == 0) return failure(ImageStatus::kInvalid, "the machine code's headers lead out of its memory");
    return read_elf({data, bytes}, capability, any_machine_code);
  }
  const auto starts_with = [data](uint32_t magic) {
    for (int i = 0; i < 4; ++i) {
      if (static_cast<unsigned char>(data[i]) != ((magic >> (8 * i)) & 0xff)) return false;
    }
    return true;
  };
  if (starts_with(tide::kFatbinWrapperMagic)) return read_wrapper(data, capability, any_machine_code);
  if (starts_with(tide::kFatbinMagic)) return read_fatbin(data, kNoEnd, capability, any_machine_code);
  if (!looks_like_ptx(data)) {
    return failure(ImageStatus::kInvalid, "neither a fatbinary nor machine code nor PTX");
  }
  ImageText text;
  text.status = ImageStatus::kOk;
  text.ptx.emplace_back(data);
  return text;
}

ImageText read_image(std::string_view image, unsigned capability) {
  if (image.starts_with(std::string_view(ELFMAG, SELFMAG))) {
    if (image.size() < sizeof(Elf64_Ehdr)) return failure(ImageStatus::kInvalid, "half an ELF header");
    return read_elf(image, capability, false);
  }
  uint32_t magic = 0;
  if (image.size() >= sizeof(magic)) magic = load<uint32_t>(image.data());
  if (magic == tide::kFatbinMagic) return read_fatbin(image.data(), image.size(), capability, false);
  std::string text(image.substr(0, image.find('\0')));
  if (!looks_like_ptx(text.c_str())) {
    return failure(ImageStatus::kInvalid, "neither a fatbinary nor machine code nor PTX");
  }
  ImageText out;
  out.status = ImageStatus::kOk;
  out.ptx.push_back(std::move(text));
  return out;
}

bool readable(const void* from, uint64_t bytes) {
  if (bytes == 0) return true;
  static const auto kPage = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const auto first = reinterpret_cast<uint64_t>(from) / kPage * kPage;
  const uint64_t end = reinterpret_cast<uint64_t>(from) + bytes;
  if (end < reinterpret_cast<uint64_t>(from)) return false;
  // Asks nothing of the pages but that they are there.
  return msync(reinterpret_cast<void*>(first), end - first, MS_ASYNC) == 0;
}

}  // namespace softgpu
