// The agent's part in what the keepers of a job keep together (docs/decisions/0037-*.md): it makes that for the first
// of them, hands it to each, and has none of it once all of them have ended. To another job's it is never given.

#include <algorithm>

#include "base/log.h"
#include "server/agent.h"
#include "server/shelf.h"

namespace tide {

std::shared_ptr<const JobShelfFiles> Agent::shelf_of(const std::string& job) const {
  for (const auto& [key, lease] : leases_) {
    if (key.first.first != job) continue;
    for (const auto& session : lease->sessions) {
      if (session->shelf != nullptr && !session->worker->gone()) return session->shelf;
    }
  }
  const Environment& set = gpus_.keeper_environment();
  const ShelfPlace place = shelf_place([&](const char* name) -> std::string {
    const auto found = std::find_if(set.begin(), set.end(), [&](const auto& each) { return each.first == name; });
    const char* const own = getenv(name);
    return found != set.end() ? found->second : own != nullptr ? own : "";
  });
  std::shared_ptr<const JobShelfFiles> files;
  if (const Outcome made = JobShelfFiles::make(place, &files); !made.ok()) {
    log(LogLevel::kWarning, "job %s: equal chunks of its vGPUs are not kept once: %s", job.c_str(),
        made.message().c_str());
  }
  return files;
}

void Agent::send_to_keeper(const std::string& job, ControlType type, AgentSession& keeper) {
  if (keeper.identity.keeps != 0 && keeper.shelf == nullptr) keeper.shelf = shelf_of(job);
  const bool shelf = keeper.shelf != nullptr;
  keeper.worker->send(type, &keeper.identity, sizeof(keeper.identity), shelf ? keeper.shelf->fds() : nullptr,
                      shelf ? JobShelfFiles::kCount : 0);
}

// What was only its is found by those that are left.
void Agent::sweep_shelf(const std::string& job, const AgentSession& ended) const {
  if (ended.shelf == nullptr) return;
  for (const auto& [key, lease] : leases_) {
    if (key.first.first != job) continue;
    for (const auto& session : lease->sessions) {
      if (session->shelf != nullptr) session->worker->send(ControlType::kSweep, nullptr, 0);
    }
  }
}

}  // namespace tide
