#include "scheduler/rank.h"

namespace tide::sched {

std::string counts_text(const JobView& job) {
  std::string text;
  for (uint32_t count = 1; count <= job.vgpus; ++count) {
    if (!may_have(job, count)) continue;
    const char* between = text.empty() ? "" : count == job.vgpus ? " or " : ", ";
    text += between + std::to_string(count);
  }
  return text;
}

}  // namespace tide::sched
