#include "server/answer_packing.h"

#include "base/clock.h"

namespace tide {

std::span<const std::byte> AnswerPacking::pack(PackMode mode, std::span<const std::byte> piece,
                                               const PackChoice::Path& path) {
  if (!choice_.wants(mode, piece.size(), path)) return {};
  --left_;
  const uint64_t begin = now_ns();
  const std::span<const std::byte> packed = packer_.pack(piece.data(), uint32_t(piece.size()));
  choice_.tried(piece.size(), packed.size(), now_ns() - begin);
  return packed;
}

}  // namespace tide
