#include "interpose/image.h"

#include <elf.h>

#include <algorithm>
#include <cstring>

#include "api/bundle.h"
#include "api/fatbin.h"

namespace tide {
namespace {

constexpr uint64_t kImageBytesMax = uint64_t(4) << 30;

uint64_t elf_bytes(const void* code) {
  Elf64_Ehdr header;
  memcpy(&header, code, sizeof header);
  if (header.e_ident[EI_CLASS] != ELFCLASS64) return 0;
  const auto* base = static_cast<const char*>(code);
  uint64_t end = header.e_ehsize;
  end = std::max(end, header.e_shoff + uint64_t(header.e_shnum) * sizeof(Elf64_Shdr));
  end = std::max(end, header.e_phoff + uint64_t(header.e_phnum) * sizeof(Elf64_Phdr));
  for (uint32_t i = 0; i < header.e_shnum; ++i) {
    Elf64_Shdr section;
    memcpy(&section, base + header.e_shoff + i * sizeof section, sizeof section);
    if (section.sh_type != SHT_NOBITS) end = std::max(end, section.sh_offset + section.sh_size);
  }
  for (uint32_t i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment;
    memcpy(&segment, base + header.e_phoff + i * sizeof segment, sizeof segment);
    end = std::max(end, segment.p_offset + segment.p_filesz);
  }
  return end;
}

Image plain_image(const void* code) {
  const char first = *static_cast<const char*>(code);
  if (first == 0) return {};
  if (first == char(0x50)) {
    FatbinHeader header;
    memcpy(&header.magic, code, sizeof header.magic);
    if (header.magic == kFatbinMagic) {
      memcpy(&header, code, sizeof header);
      return {ImageKind::kFatbin, code, uint64_t(header.header_bytes) + header.entries_bytes};
    }
  }
  // As text, which does not look behind its end.
  if (first == char(kBundleMagic & 0xff) &&
      strncmp(static_cast<const char*>(code), reinterpret_cast<const char*>(&kBundleMagic), sizeof kBundleMagic) == 0) {
    BundleHeader header;
    memcpy(&header, code, sizeof header);
    return {ImageKind::kBundle, code, header.bytes};
  }
  if (first == ELFMAG0 && memcmp(code, ELFMAG, SELFMAG) == 0) return {ImageKind::kElf, code, elf_bytes(code)};
  return {ImageKind::kPtx, code, strlen(static_cast<const char*>(code)) + 1};
}

}  // namespace

Image find_image(const void* code) {
  if (code == nullptr) return {};
  Image image;
  FatbinWrapper wrapper;
  if (*static_cast<const unsigned char*>(code) == 0xb1) {
    memcpy(&wrapper, code, sizeof wrapper);
    if (wrapper.magic != kFatbinWrapperMagic) return {};
    const bool several =
        wrapper.version == 2 && wrapper.more != nullptr && *static_cast<void* const*>(wrapper.more) != nullptr;
    if (several) return {ImageKind::kSeveralFatbins, code, 0};
    if (wrapper.fatbin == nullptr) return {};
    image = plain_image(wrapper.fatbin);
  } else {
    image = plain_image(code);
  }
  if (image.bytes == 0 || image.bytes > kImageBytesMax) return {};
  return image;
}

Fatbins fatbins_of(const void* code) {
  FatbinWrapper wrapper;
  memcpy(&wrapper, code, sizeof wrapper);
  Fatbins out;
  if (wrapper.fatbin != nullptr) out.linked = plain_image(wrapper.fatbin);
  out.units = static_cast<const void* const*>(wrapper.more);
  return out;
}

}  // namespace tide
