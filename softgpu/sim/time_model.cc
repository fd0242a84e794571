#include "softgpu/sim/time_model.h"

#include <algorithm>
#include <cstdlib>

namespace softgpu::sim {

bool parse_time(std::string_view text, TimeSettings* out, std::string* error) {
  TimeSettings made;
  if (text == "virtual") {
    made.mode = TimeMode::kVirtual;
  } else if (text == "scaled" || text.starts_with("scaled:")) {
    made.mode = TimeMode::kScaled;
    if (text.size() > 6) {
      const std::string factor(text.substr(7));
      char* end = nullptr;
      made.factor = std::strtod(factor.c_str(), &end);
      if (factor.empty() || *end != 0 || !(made.factor > 0) || made.factor > 1e6) {
        *error = "expected a positive number behind 'scaled:'";
        return false;
      }
    }
  } else if (text != "off") {
    *error = "expected off, virtual, scaled or scaled:FACTOR";
    return false;
  }
  *out = made;
  return true;
}

std::string text_of(const TimeSettings& settings) {
  if (settings.mode == TimeMode::kOff) return "off";
  return settings.mode == TimeMode::kVirtual ? "virtual" : "scaled:" + std::to_string(settings.factor);
}

void StreamClock::advance_to(uint64_t time) {
  uint64_t before = ns.load();
  while (before < time && !ns.compare_exchange_weak(before, time)) {
  }
}

uint64_t CardClock::kernel_ns(const KernelCost& cost) const {
  // A grid that does not fill the card runs on a part of it; the memory is everybody's.
  const double part =
      std::min(1.0, static_cast<double>(std::max<uint64_t>(cost.blocks, 1)) / std::max(1u, speed_.multiprocessors));
  const double compute = static_cast<double>(cost.instructions) / (speed_.instructions_per_ns * part);
  const double memory = static_cast<double>(cost.bytes) / speed_.bytes_per_ns;
  return speed_.launch_ns + static_cast<uint64_t>(std::max(compute, memory) * cost.slow);
}

uint64_t CardClock::copy_ns(uint64_t bytes) const {
  return speed_.copy_ns + static_cast<uint64_t>(static_cast<double>(bytes) / speed_.link_bytes_per_ns);
}

uint64_t CardClock::run_kernel(StreamClock* stream, const KernelCost& cost, uint64_t now) {
  const uint64_t takes = kernel_ns(cost);
  const double part =
      std::min(1.0, static_cast<double>(std::max<uint64_t>(cost.blocks, 1)) / std::max(1u, speed_.multiprocessors));
  const std::lock_guard lock(mu_);
  const uint64_t start = std::max({stream->ns.load(), multiprocessors_free_, now});
  multiprocessors_free_ = start + static_cast<uint64_t>(static_cast<double>(takes) * part);
  stream->advance_to(start + takes);
  return start + takes;
}

uint64_t CardClock::run_copy(StreamClock* stream, uint64_t bytes, bool to_device, uint64_t now) {
  const uint64_t takes = copy_ns(bytes);
  const std::lock_guard lock(mu_);
  uint64_t& link = link_free_[to_device ? 1 : 0];
  const uint64_t start = std::max({stream->ns.load(), link, now});
  link = start + takes;
  stream->advance_to(start + takes);
  return start + takes;
}

}  // namespace softgpu::sim
