#include "scheduler/kv.h"

namespace tide::sched {

Range range_of(const std::string& prefix) {
  std::string end = prefix;
  while (!end.empty() && uint8_t(end.back()) == 0xff) end.pop_back();
  if (!end.empty()) end.back() = char(uint8_t(end.back()) + 1);
  return {prefix, end};
}

}  // namespace tide::sched
