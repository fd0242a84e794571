#pragma once

// The jobs of a trace that are there, in line (scheduler/line.h), as they come, step forward and go.

#include <vector>

#include "scheduler/line.h"
#include "scheduler/simulate/trace.h"

namespace tide::simulate {

class Standing {
 public:
  Standing(const Trace& trace, uint32_t gpus);

  // Requires: in the order of submission.
  void join(uint32_t job, const sched::JobView& view);
  void leave(uint32_t job);
  void step(uint32_t job, int64_t place);
  void has(uint32_t job, uint32_t gpus);

  // Shares out anew, and says for whom that means something else than before. Valid until the next call.
  const std::vector<uint32_t>& settle();
  const sched::InLine& of(uint32_t job) const { return jobs_[job]; }

 private:
  std::vector<uint32_t>::iterator find(uint32_t job);

  std::vector<int64_t> places_;  // as in the trace, like all these
  std::vector<sched::Candidate> candidates_;
  std::vector<sched::InLine> jobs_, told_;
  std::vector<uint32_t> there_, line_;  // in the order of submission, and of their places
  std::vector<uint32_t> changed_;
  int64_t free_;
  bool dirty_ = false;
};

}  // namespace tide::simulate
