#include "server/told_digest.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <array>

namespace tide {

uint64_t told_digest(Region region) {
  const WorkerPage& page = region.worker();
  const std::array<uint64_t, 4> cursors = {page.answer_head, page.error, page.errors, page.sticky};
  const uint64_t seed = XXH3_64bits(cursors.data(), sizeof(cursors));
  const auto* words = reinterpret_cast<const std::byte*>(page.stream_progress);
  const size_t bytes = size_t(reinterpret_cast<const std::byte*>(&page + 1) - words);
  return XXH3_64bits_withSeed(words, bytes, seed);
}

}  // namespace tide
