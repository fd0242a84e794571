#include "tools/tide/slow_link.h"

#include "base/log.h"

namespace tide::cli {
namespace {

constexpr uint64_t kSlowRoundTripUs = 5'000;
constexpr uint64_t kSlowBytesPerS = 125'000'000;
constexpr uint64_t kWindowLeastMs = 3'000;
constexpr uint64_t kShareLeast = 4;  // a quarter

bool is_slow(control::LinkStats::Reader link) {
  const bool far = link.getRoundTripUs() >= kSlowRoundTripUs;
  const bool narrow = link.getBytesPerS() != 0 && link.getBytesPerS() < kSlowBytesPerS;
  return far || narrow;
}

bool costs_much(control::LinkStats::Reader link) {
  return link.getWindowMs() >= kWindowLeastMs && link.getWaitMs() * kShareLeast >= link.getWindowMs();
}

// What it carries where that is known, else what it did carry while it was waited for.
double megabits_per_s(control::LinkStats::Reader link) {
  if (link.getBytesPerS() != 0) return double(link.getBytesPerS()) * 8e-6;
  return link.getWaitMs() == 0 ? 0 : double(link.getWindowBytes()) * 8e-3 / double(link.getWaitMs());
}

std::string round_trip(uint64_t us) {
  return us < 10'000 ? format("%.1f ms", double(us) * 1e-3) : format("%.0f ms", double(us) * 1e-3);
}

}  // namespace

std::string slow_link(const std::vector<control::VgpuStats::Reader>& vgpus, const std::vector<std::string>& servers) {
  const control::VgpuStats::Reader* worst = nullptr;
  for (const auto& stats : vgpus) {
    const auto link = stats.getLink();
    if (!is_slow(link) || !costs_much(link)) continue;
    if (worst == nullptr || link.getWaitMs() > worst->getLink().getWaitMs()) worst = &stats;
  }
  if (worst == nullptr) return "";
  const auto link = worst->getLink();
  const std::string server = worst->getVgpu() < servers.size() ? servers[worst->getVgpu()] : "its server";
  return format("the link to %s is slow: round trip %s, %.1f Mb/s; %.1f s of the last %.1f s were spent waiting for it",
                server.c_str(), round_trip(link.getRoundTripUs()).c_str(), megabits_per_s(link),
                double(link.getWaitMs()) * 1e-3, double(link.getWindowMs()) * 1e-3);
}

std::string slow_link_remedy() {
  return "`rdma-bench HOST` measures it and says what is wrong; GPUs that are nearer, fewer and larger copies, "
         "`--compress on` cost less of it";
}

}  // namespace tide::cli
