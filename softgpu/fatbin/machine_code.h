#pragma once

// What a file of machine code (a "cubin") says about itself: its kernels with their parameters, and its variables. The
// code itself cannot run here.

#include <cstddef>
#include <string>
#include <vector>

namespace softgpu {

// The first bytes of every kernel's body are `ret`: loading the text gives kernels that can be looked up and asked for
// their parameters. Empty when the file is damaged or has neither kernels nor variables; `kernels` gets their names.
std::string outline_of_machine_code(const char* elf, size_t bytes, std::vector<std::string>* kernels);

// The end of the last thing that the ELF headers point to. They are believed.
size_t bytes_of_machine_code(const char* elf);

// The capability that it was made for, e.g. 80.
unsigned capability_of_machine_code(const char* elf);

}  // namespace softgpu
