#pragma once

// What a worker found in an image (api/library_info.h), checked: nothing of it is believed before.

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "api/library_info.h"

namespace tide {

struct FoundKernel {
  std::string_view name;  // in the payload
  KernelHeader header;
  std::vector<ParamEntry> params;
};

// `count` kernels, behind the LibraryHeader. False: malformed.
bool parse_kernels(const std::vector<std::byte>& payload, uint32_t count, std::vector<FoundKernel>* kernels);

}  // namespace tide
