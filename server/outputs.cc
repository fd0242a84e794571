#include "server/outputs.h"

#include <cstring>

#include "transport/ring.h"

namespace tide {

std::byte* Outputs::room(uint64_t bytes) {
  const uint64_t padded = align_up(bytes, 8);
  if (padded > kAnswerPayloadMax - bytes_) {
    fits_ = false;
    return nullptr;
  }
  bytes_ += padded;
  parts_.push_back({std::make_unique<uint64_t[]>(padded / 8 + 1), padded});
  return reinterpret_cast<std::byte*>(parts_.back().words.get());
}

std::vector<std::byte> Outputs::payload() const {
  std::vector<std::byte> all(bytes_);
  uint64_t at = 0;
  for (const Part& part : parts_) {
    if (part.bytes != 0) memcpy(all.data() + at, part.words.get(), part.bytes);
    at += part.bytes;
  }
  return all;
}

}  // namespace tide
