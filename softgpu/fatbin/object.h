#pragma once

// Files of compilers that carry fatbinaries: objects of `nvcc -dc`, archives of them; and the image that the linker
// returns: an ELF file with one section of PTX a unit.

#include <string>
#include <string_view>
#include <vector>

#include "softgpu/fatbin/fatbin.h"

namespace softgpu {

// Length of an ELF file in memory from its headers; 0 when they lead out of readable memory.
uint64_t elf_bytes(const char* data);

// Machine code for the host, as opposed to that for a GPU.
bool is_host_object(std::string_view file);
// The PTX of every fatbinary in the object.
ImageText read_object(std::string_view file, unsigned capability);

struct Member {
  std::string name;
  std::string_view bytes;
};
// False when it is not an archive, or a damaged one. Members point into `file`.
bool read_archive(std::string_view file, std::vector<Member>* members);

// Where in an executable or a library the fatbinaries of units lie that were linked with each other (`-rdc`). Which of
// them belong together is only known when the program has started; hardly any file has two such programs.
std::vector<uint64_t> linked_units(std::string_view file);

std::string write_linked_image(const std::vector<std::string>& names, const std::vector<std::string>& ptx,
                               unsigned capability);
// False when the file is something else.
bool read_linked_image(std::string_view file, ImageText* image);

}  // namespace softgpu
