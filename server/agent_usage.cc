// How long GPUs have worked, and for whom: counted by the workers, shared out so that a GPU does not work longer than
// time goes by, however many vGPUs it serves.

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "server/agent.h"

namespace tide {
namespace {

constexpr uint64_t kFormerNs = 60'000'000'000;  // so long somebody may ask about a vGPU that has left
constexpr auto kPatience = 500 * kj::MILLISECONDS;

}  // namespace

// A worker has said what it has counted.
void Agent::count(const LeaseKey& key, AgentSession* session, const ControlStats& counted) {
  const uint32_t fresh_ms = counted.busy_ms - session->busy_ms;  // also where it has gone round
  session->busy_ms = counted.busy_ms;
  if (!std::exchange(session->counting, true)) return;
  if (session->gpu >= gpus_.devices().size()) return;  // kept on no GPU
  Usage& usage = usage_[key];
  usage.job = key.first.first;
  usage.vgpu = key.first.second;
  usage.epoch = key.second;
  usage.gpu = session->gpu;
  usage.fresh_ms += fresh_ms;
  usage.heard_ns = now_ns();
}

// Those that were at work at once had the GPU together: each its part of what it can have done.
std::vector<Agent::Usage> Agent::share_out() {
  const uint64_t now = now_ns();
  std::map<uint32_t, double> wanted_ms;
  for (const auto& [key, usage] : usage_) wanted_ms[usage.gpu] += usage.fresh_ms;
  for (const auto& [gpu, wanted] : wanted_ms) {
    const uint64_t since = std::exchange(shared_out_ns_[gpu], now);
    const double gone_ms = since == 0 ? wanted : double(now - since) / 1e6;
    const double part = wanted > gone_ms ? gone_ms / wanted : 1;
    for (auto& [key, usage] : usage_) {
      if (usage.gpu == gpu) usage.used_ms += std::exchange(usage.fresh_ms, 0) * part;
    }
  }
  std::erase_if(usage_, [&](const auto& each) {
    return leases_.count(each.first) == 0 && now - each.second.heard_ns > kFormerNs;
  });
  std::vector<Usage> all;
  for (auto& [key, usage] : usage_) {
    usage.resident_bytes = 0;
    usage.busy_permille = 0;
    const auto lease = leases_.find(key);
    if (lease != leases_.end()) {
      for (const auto& session : lease->second->sessions) {
        usage.resident_bytes += session->counted.resident_bytes;
        usage.busy_permille = std::min(1000u, usage.busy_permille + session->counted.busy_permille);
      }
    }
    all.push_back(usage);
  }
  return all;
}

kj::Promise<std::vector<Agent::Usage>> Agent::usage() {
  kj::Vector<kj::Promise<void>> asked;
  for (const auto& [key, lease] : leases_) {
    if (is_on_no_gpu(lease->terms)) continue;
    for (const auto& session : lease->sessions) {
      auto reply = session->worker->await(ControlType::kStatsReply).then([session](ControlMessage&& message) {
        if (const auto* counted = message.as<ControlStats>()) session->counted = *counted;
      });
      session->worker->send(ControlType::kStats, nullptr, 0);
      asked.add(io_.provider->getTimer().timeoutAfter(kPatience, kj::mv(reply)).then([] {}, [](kj::Exception&&) {}));
    }
  }
  return kj::joinPromises(asked.releaseAsArray()).then([this] { return share_out(); });
}

}  // namespace tide
