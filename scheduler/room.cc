#include "scheduler/room.h"

#include <algorithm>

#include "base/log.h"

namespace tide::sched {

uint64_t bytes_on(const Portion& portion, uint64_t gpu_bytes) {
  if (portion.memory_bytes != 0) return portion.memory_bytes;
  return gpu_bytes / kWholeGpu * portion.part + gpu_bytes % kWholeGpu * portion.part / kWholeGpu;
}

bool Room::fits(const Portion& portion) const {
  return portion.part <= part_left && bytes_on(portion, gpu_bytes) <= memory_left;
}

void Room::take(const Portion& portion) {
  part_left -= std::min(portion.part, part_left);
  memory_left -= std::min(bytes_on(portion, gpu_bytes), memory_left);
}

std::string part_text(uint32_t part) {
  std::string text = format("%u.%03u", part / kWholeGpu, part % kWholeGpu);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text;
}

}  // namespace tide::sched
