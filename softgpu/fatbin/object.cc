#include "softgpu/fatbin/object.h"

#include <ar.h>
#include <elf.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "api/fatbin.h"

namespace softgpu {
namespace {

using tide::FatbinHeader;
using tide::kFatbinMagic;

constexpr uint16_t kMachineCuda = 190;
constexpr std::string_view kUnitSection = ".softgpu.unit";
constexpr std::string_view kUnitsSection = "__nv_relfatbin";
constexpr std::string_view kSections[] = {".nv_fatbin", kUnitsSection};
constexpr unsigned kAbiOfThirteen = 8;

struct Section {
  std::string_view name;
  std::string_view bytes;
};

template <typename T>
bool load(std::string_view file, uint64_t at, T* out) {
  if (at > file.size() || sizeof(T) > file.size() - at) return false;
  std::memcpy(out, file.data() + at, sizeof(T));
  return true;
}

std::string_view text_at(std::string_view table, uint64_t at) {
  if (at >= table.size()) return {};
  const std::string_view rest = table.substr(at);
  return rest.substr(0, rest.find('\0'));
}

// False when a header leads out of the file.
bool read_sections(std::string_view file, std::vector<Section>* out) {
  Elf64_Ehdr header;
  if (!load(file, 0, &header) || header.e_ident[EI_CLASS] != ELFCLASS64) return false;
  std::vector<Elf64_Shdr> headers(header.e_shnum);
  for (uint64_t i = 0; i < headers.size(); ++i) {
    if (header.e_shoff > file.size() || !load(file, header.e_shoff + i * sizeof(Elf64_Shdr), &headers[i])) return false;
  }
  const auto bytes_of = [&](const Elf64_Shdr& s) -> std::string_view {
    if (s.sh_type == SHT_NOBITS || s.sh_offset > file.size() || s.sh_size > file.size() - s.sh_offset) return {};
    return file.substr(s.sh_offset, s.sh_size);
  };
  if (header.e_shstrndx >= headers.size()) return headers.empty();
  const std::string_view names = bytes_of(headers[header.e_shstrndx]);
  for (const Elf64_Shdr& s : headers) out->push_back({text_at(names, s.sh_name), bytes_of(s)});
  return true;
}

// Fatbinaries one behind the other, with zeroes between them.
bool read_fatbins(std::string_view bytes, unsigned capability, ImageText* out) {
  size_t at = 0;
  while (at + 16 <= bytes.size()) {
    FatbinHeader header;
    std::memcpy(&header, bytes.data() + at, sizeof(header));
    if (header.magic != kFatbinMagic) {
      at += 8;
      continue;
    }
    ImageText one = read_image(bytes.substr(at), capability);
    if (one.status != ImageStatus::kOk || one.machine_code) {
      if (one.machine_code) one.status = ImageStatus::kNoPtx, one.error = "an object has machine code, but no PTX";
      *out = std::move(one);
      return false;
    }
    for (std::string& ptx : one.ptx) out->ptx.push_back(std::move(ptx));
    at += (header.header_bytes + header.entries_bytes + 7) / 8 * 8;
  }
  return true;
}

void append(std::string* out, const void* from, size_t bytes) { out->append(static_cast<const char*>(from), bytes); }

}  // namespace

uint64_t elf_bytes(const char* data) {
  if (!readable(data, sizeof(Elf64_Ehdr))) return 0;
  Elf64_Ehdr header;
  std::memcpy(&header, data, sizeof(header));
  if (header.e_ident[EI_CLASS] != ELFCLASS64) return sizeof(header);
  uint64_t end = sizeof(header);
  const auto reach = [&](uint64_t offset, uint64_t bytes) {
    if (offset + bytes < offset) return false;
    end = std::max(end, offset + bytes);
    return true;
  };
  if (!reach(header.e_shoff, uint64_t{header.e_shnum} * sizeof(Elf64_Shdr)) ||
      !reach(header.e_phoff, uint64_t{header.e_phnum} * sizeof(Elf64_Phdr)) || !readable(data, end)) {
    return 0;
  }
  for (uint64_t i = 0; i < header.e_shnum; ++i) {
    Elf64_Shdr section;
    std::memcpy(&section, data + header.e_shoff + i * sizeof(section), sizeof(section));
    if (section.sh_type != SHT_NOBITS && !reach(section.sh_offset, section.sh_size)) return 0;
  }
  return readable(data, end) ? end : 0;
}

bool is_host_object(std::string_view file) {
  Elf64_Ehdr header;
  return load(file, 0, &header) && std::memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 &&
         (header.e_machine == EM_X86_64 || header.e_machine == EM_AARCH64);
}

ImageText read_object(std::string_view file, unsigned capability) {
  ImageText out;
  std::vector<Section> sections;
  if (!read_sections(file, &sections)) {
    out.error = "the object's headers lead out of it";
    return out;
  }
  for (const Section& section : sections) {
    if (std::find(std::begin(kSections), std::end(kSections), section.name) == std::end(kSections)) continue;
    if (!read_fatbins(section.bytes, capability, &out)) return out;
  }
  out.status = out.ptx.empty() ? ImageStatus::kNoPtx : ImageStatus::kOk;
  out.chosen = true;
  if (out.ptx.empty()) out.error = "the object has no PTX in it";
  return out;
}

bool read_archive(std::string_view file, std::vector<Member>* members) {
  if (!file.starts_with(std::string_view(ARMAG, SARMAG))) return false;
  std::string_view long_names;
  size_t at = SARMAG;
  while (at < file.size()) {
    ar_hdr header;
    if (!load(file, at, &header) || std::memcmp(header.ar_fmag, ARFMAG, sizeof(header.ar_fmag)) != 0) return false;
    at += sizeof(header);
    const std::string digits(header.ar_size, sizeof(header.ar_size));
    const uint64_t bytes = std::strtoull(digits.c_str(), nullptr, 10);
    if (bytes > file.size() - at) return false;
    const std::string_view body = file.substr(at, bytes);
    at += bytes + bytes % 2;
    std::string name(header.ar_name, sizeof(header.ar_name));
    name.erase(name.find_last_not_of(' ') + 1);
    if (name == "//") long_names = body;
    if (name == "/" || name == "//" || name == "/SYM64/") continue;
    if (name.size() > 1 && name[0] == '/') {
      const uint64_t offset = std::strtoull(name.c_str() + 1, nullptr, 10);
      const std::string_view rest = offset < long_names.size() ? long_names.substr(offset) : std::string_view();
      name = std::string(rest.substr(0, rest.find('\n')));
    }
    if (name.ends_with('/')) name.pop_back();
    members->push_back({std::move(name), body});
  }
  return true;
}

std::vector<uint64_t> linked_units(std::string_view file) {
  std::vector<uint64_t> out;
  std::vector<Section> sections;
  if (!is_host_object(file) || !read_sections(file, &sections)) return out;
  for (const Section& section : sections) {
    if (section.name != kUnitsSection) continue;
    for (size_t at = 0; at + 16 <= section.bytes.size();) {
      FatbinHeader header;
      std::memcpy(&header, section.bytes.data() + at, sizeof(header));
      const bool found = header.magic == kFatbinMagic;
      if (found) out.push_back(static_cast<uint64_t>(section.bytes.data() + at - file.data()));
      if (found && header.entries_bytes > section.bytes.size()) break;
      at += found ? (header.header_bytes + header.entries_bytes + 7) / 8 * 8 : 8;
    }
  }
  return out;
}

// Each section is a unit's name, a NUL, and its text with a NUL.
std::string write_linked_image(const std::vector<std::string>& names, const std::vector<std::string>& ptx,
                               unsigned capability) {
  std::string bodies;
  std::vector<Elf64_Shdr> sections(1);
  const std::string strings = std::string(1, '\0') + std::string(kUnitSection) + '\0' + ".shstrtab" + '\0';
  const auto add = [&](uint32_t name, uint32_t type, const std::string& body) {
    Elf64_Shdr s{};
    s.sh_name = name;
    s.sh_type = type;
    s.sh_offset = sizeof(Elf64_Ehdr) + bodies.size();
    s.sh_size = body.size();
    s.sh_addralign = 1;
    sections.push_back(s);
    bodies += body;
  };
  for (size_t i = 0; i < ptx.size(); ++i) {
    add(1, SHT_PROGBITS, (i < names.size() ? names[i] : std::string()) + '\0' + ptx[i] + '\0');
  }
  add(static_cast<uint32_t>(kUnitSection.size() + 2), SHT_STRTAB, strings);
  bodies.resize((bodies.size() + 7) / 8 * 8);
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_ident[EI_ABIVERSION] = kAbiOfThirteen;
  header.e_type = ET_EXEC;
  header.e_machine = kMachineCuda;
  header.e_version = EV_CURRENT;
  header.e_flags = capability << 8;
  header.e_ehsize = sizeof(header);
  header.e_shoff = sizeof(header) + bodies.size();
  header.e_shentsize = sizeof(Elf64_Shdr);
  header.e_shnum = static_cast<uint16_t>(sections.size());
  header.e_shstrndx = static_cast<uint16_t>(sections.size() - 1);
  std::string out;
  append(&out, &header, sizeof(header));
  out += bodies;
  append(&out, sections.data(), sections.size() * sizeof(Elf64_Shdr));
  return out;
}

bool read_linked_image(std::string_view file, ImageText* image) {
  std::vector<Section> sections;
  if (is_host_object(file) || !read_sections(file, &sections)) return false;
  for (const Section& section : sections) {
    if (section.name != kUnitSection) continue;
    const std::string_view name = text_at(section.bytes, 0);
    image->names.emplace_back(name);
    image->ptx.emplace_back(text_at(section.bytes, name.size() + 1));
  }
  if (image->ptx.empty()) return false;
  image->chosen = true;
  image->status = ImageStatus::kOk;
  return true;
}

}  // namespace softgpu
