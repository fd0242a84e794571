#include "softgpu/fatbin/machine_code.h"

#include <elf.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <string_view>

namespace softgpu {
namespace {

constexpr uint8_t kFormatBytes = 4;  // of an attribute: its value's size is in its header
constexpr uint8_t kAttributeParameter = 0x17;
constexpr uint8_t kAttributeMaxThreads = 0x05;
constexpr unsigned char kOtherEntry = 0x10;  // of a symbol: a kernel, not a function

struct AttributeHeader {
  uint8_t format;
  uint8_t attribute;
  uint16_t bytes;
};

struct ParameterAttribute {
  uint32_t index;
  uint16_t ordinal;
  uint16_t offset;
  uint32_t size_and_more;
};

struct Parameter {
  uint32_t offset;
  uint32_t bytes;
};

struct Attributes {
  std::map<uint16_t, Parameter> parameters;  // by ordinal
  uint32_t max_threads = 0;
};

// The tables of one file, every access checked against its size.
class Elf {
 public:
  Elf(const char* data, size_t bytes) : data_(data), bytes_(bytes) {}

  bool open() {
    if (!load(0, &header_) || header_.e_shentsize != sizeof(Elf64_Shdr)) return false;
    for (unsigned i = 0; i < header_.e_shnum; ++i) {
      Elf64_Shdr section;
      if (!load(header_.e_shoff + uint64_t{i} * sizeof(section), &section)) return false;
      sections_.push_back(section);
    }
    return header_.e_shstrndx < sections_.size();
  }

  const std::vector<Elf64_Shdr>& sections() const { return sections_; }
  std::string_view section_name(const Elf64_Shdr& section) const {
    return text(sections_[header_.e_shstrndx], section.sh_name);
  }
  std::string_view text(const Elf64_Shdr& strings, uint64_t offset) const {
    const uint64_t at = strings.sh_offset + offset;
    if (offset >= strings.sh_size || at >= bytes_) return {};
    return {data_ + at, strnlen(data_ + at, bytes_ - at)};
  }
  template <typename T>
  bool load(uint64_t at, T* value) const {
    if (at > bytes_ || bytes_ - at < sizeof(T)) return false;
    std::memcpy(value, data_ + at, sizeof(T));
    return true;
  }

 private:
  const char* data_;
  size_t bytes_;
  Elf64_Ehdr header_;
  std::vector<Elf64_Shdr> sections_;
};

Attributes read_attributes(const Elf& elf, const Elf64_Shdr& section) {
  Attributes out;
  uint64_t at = section.sh_offset;
  const uint64_t end = section.sh_offset + section.sh_size;
  AttributeHeader header;
  while (at + sizeof(header) <= end && elf.load(at, &header)) {
    at += sizeof(header);
    if (header.format != kFormatBytes) continue;  // the value is in the header
    ParameterAttribute parameter;
    if (header.attribute == kAttributeParameter && header.bytes >= sizeof(parameter) && elf.load(at, &parameter)) {
      out.parameters[parameter.ordinal] = {parameter.offset, parameter.size_and_more >> 18};
    }
    uint32_t dimensions[3];
    if (header.attribute == kAttributeMaxThreads && header.bytes == sizeof(dimensions) && elf.load(at, &dimensions)) {
      out.max_threads = dimensions[0] * dimensions[1] * dimensions[2];
    }
    at += header.bytes;
  }
  return out;
}

// Declares a parameter so that it lies where the machine code has it.
std::string declare(const Parameter& parameter, uint32_t previous_end, size_t number) {
  uint32_t align = 1;
  while (align < 128 && (previous_end + align - 1) / align * align != parameter.offset) align *= 2;
  return ".param .align " + std::to_string(align) + " .b8 p" + std::to_string(number) + "[" +
         std::to_string(parameter.bytes) + "]";
}

std::string kernel_text(std::string_view name, const Attributes& attributes) {
  std::string text = ".visible .entry " + std::string(name) + "(";
  uint32_t end = 0;
  size_t number = 0;
  for (const auto& [ordinal, parameter] : attributes.parameters) {
    if (number != 0) text += ", ";
    text += declare(parameter, end, number++);
    end = parameter.offset + parameter.bytes;
  }
  text += ")\n";
  if (attributes.max_threads != 0) text += ".maxntid " + std::to_string(attributes.max_threads) + "\n";
  return text + "{ ret; }\n";
}

bool plain_name(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '$';
  });
}

}  // namespace

std::string outline_of_machine_code(const char* data, size_t bytes, std::vector<std::string>* kernels) {
  Elf elf(data, bytes);
  if (!elf.open()) return "";
  std::map<std::string_view, Attributes> attributes;
  const Elf64_Shdr* symbols = nullptr;
  for (const Elf64_Shdr& section : elf.sections()) {
    const std::string_view name = elf.section_name(section);
    constexpr std::string_view kInfo = ".nv.info.";
    if (name.starts_with(kInfo)) attributes[name.substr(kInfo.size())] = read_attributes(elf, section);
    if (section.sh_type == SHT_SYMTAB && section.sh_link < elf.sections().size()) symbols = &section;
  }
  if (symbols == nullptr) return "";
  std::string text;
  for (uint64_t at = 0; at + sizeof(Elf64_Sym) <= symbols->sh_size; at += sizeof(Elf64_Sym)) {
    Elf64_Sym symbol;
    if (!elf.load(symbols->sh_offset + at, &symbol)) return "";
    const std::string_view name = elf.text(elf.sections()[symbols->sh_link], symbol.st_name);
    if (!plain_name(name) || symbol.st_shndx == SHN_UNDEF || symbol.st_shndx >= elf.sections().size()) continue;
    const std::string_view section = elf.section_name(elf.sections()[symbol.st_shndx]);
    if (ELF64_ST_TYPE(symbol.st_info) == STT_FUNC && (symbol.st_other & kOtherEntry) != 0) {
      text += kernel_text(name, attributes[name]);
      kernels->emplace_back(name);
    } else if (ELF64_ST_TYPE(symbol.st_info) == STT_OBJECT && symbol.st_size != 0) {
      const bool constant = section.starts_with(".nv.constant");
      if (!constant && !section.starts_with(".nv.global")) continue;
      text += std::string(".visible ") + (constant ? ".const" : ".global") + " .align 16 .b8 " + std::string(name) +
              "[" + std::to_string(symbol.st_size) + "];\n";
    }
  }
  return text.empty() ? "" : ".version 9.0\n.target sm_75\n.address_size 64\n" + text;
}

size_t bytes_of_machine_code(const char* elf) {
  Elf64_Ehdr header;
  std::memcpy(&header, elf, sizeof(header));
  uint64_t end = header.e_shoff + uint64_t{header.e_shnum} * header.e_shentsize;
  end = std::max(end, header.e_phoff + uint64_t{header.e_phnum} * header.e_phentsize);
  for (unsigned i = 0; header.e_shentsize == sizeof(Elf64_Shdr) && i < header.e_shnum; ++i) {
    Elf64_Shdr section;
    std::memcpy(&section, elf + header.e_shoff + uint64_t{i} * sizeof(section), sizeof(section));
    if (section.sh_type != SHT_NOBITS) end = std::max(end, section.sh_offset + section.sh_size);
  }
  return end;
}

unsigned capability_of_machine_code(const char* elf) {
  Elf64_Ehdr header;
  std::memcpy(&header, elf, sizeof(header));
  constexpr unsigned char kAbiOfThirteen = 8;  // from then on the capability is in the second byte of the flags
  const unsigned shift = header.e_ident[EI_ABIVERSION] >= kAbiOfThirteen ? 8 : 0;
  return (header.e_flags >> shift) & 0xff;
}

}  // namespace softgpu
