// Queues together (config.h): what each of them says has been checked.

#include <algorithm>
#include <map>

#include "base/log.h"
#include "scheduler/config.h"

namespace tide::sched {
namespace {

std::string gpus_text(double gpus) { return format("%g GPU%s", gpus, gpus == 1 ? "" : "s"); }

class QueueCheck {
 public:
  QueueCheck(const std::vector<QueueConfig>& queues, const std::string& path) : queues_(queues), path_(path) {}

  std::vector<ConfigError> run() {
    if (queues_.size() > kQueuesMax) {
      error(queues_[kQueuesMax].at, format("there are %zu queues", queues_.size()),
            format("a pool has %zu at most", kQueuesMax));
      return std::move(errors_);
    }
    for (const QueueConfig& queue : queues_) {
      if (by_name_.emplace(queue.name, &queue).second) continue;
      error(queue.at, "there are two queues '" + queue.name + "'",
            format("the other one is in line %u", by_name_[queue.name]->at.line));
    }
    for (const QueueConfig& queue : queues_) {
      if (is_placed(queue)) children_[queue.parent].push_back(&queue);
    }
    for (const QueueConfig& queue : queues_) {
      alone(queue);
      beside(queue);
      by_model(queue);
    }
    return std::move(errors_);
  }

 private:
  void error(const FilePlace& at, std::string message, std::string hint) {
    errors_.push_back({path_, at.line, at.column, std::move(message), std::move(hint)});
  }

  // Whether its parent is there, and the way up ends at the pool.
  bool is_placed(const QueueConfig& queue) {
    uint32_t levels = 1;
    std::string way = queue.name;
    for (const QueueConfig* at = &queue; !at->parent.empty(); ++levels) {
      const auto found = by_name_.find(at->parent);
      if (found == by_name_.end()) {
        if (at == &queue) {
          error(queue.parent_at, "there is no queue '" + queue.parent + "' to be the parent of '" + queue.name + "'",
                "write one with that name, or leave 'parent' out");
        }
        return false;
      }
      at = found->second;
      way += " -> " + at->name;
      if (at == &queue || at->name == queue.name) {
        error(queue.parent_at, "queue '" + queue.name + "' is its own ancestor: " + way,
              "one of them must have no parent, or another one");
        return false;
      }
      if (levels > kQueueLevelsMax) break;  // also a cycle that it is not part of
    }
    if (levels <= kQueueLevelsMax) return true;
    if (!is_in_cycle(queue)) {
      error(queue.parent_at,
            format("queue '%s' has more than %u levels above it", queue.name.c_str(), kQueueLevelsMax - 1),
            "make the tree flatter");
    }
    return false;
  }

  // Whether the way up runs into a cycle, of whose members it is said.
  bool is_in_cycle(const QueueConfig& queue) const {
    const QueueConfig* at = &queue;
    for (size_t steps = 0; steps <= queues_.size(); ++steps) {
      if (at->parent.empty()) return false;
      const auto found = by_name_.find(at->parent);
      if (found == by_name_.end()) return false;
      at = found->second;
    }
    return true;
  }

  void alone(const QueueConfig& queue) {
    if (queue.limit && *queue.limit < queue.quota) {
      error(queue.limit_at, "the limit of queue '" + queue.name + "' is below its quota of " + gpus_text(queue.quota),
            format("write limit = %g or more, or a smaller quota", queue.quota));
    }
    if (!queue.preemptible && queue.quota == 0 && children_.count(queue.name) == 0) {
      error(queue.at, "queue '" + queue.name + "' is not preemptible and has no quota, so nothing can ever run in it",
            "write quota = ...: jobs from which nothing is taken get no more than that");
    }
  }

  // What it says of models: alone, and beside what its children say.
  void by_model(const QueueConfig& queue) {
    uint64_t quotas = 0;
    for (size_t i = 0; i < queue.models.size(); ++i) {
      const ModelQuota& model = queue.models[i];
      bool within = false;  // another one, like "H200 NVL" in "H200"
      for (size_t k = 0; k < queue.models.size(); ++k) {
        const bool same = is_same_model(model.model, queue.models[k].model);
        within |= k != i && !same && is_model(model.model, queue.models[k].model);
        if (k < i && same) error(model.at, "model " + model.model + " stands there twice", "leave one out");
      }
      quotas += within ? 0 : model.quota;
      if (model.limit && *model.limit < model.quota) {
        error(model.limit_at,
              "the limit of queue '" + queue.name + "' for model " + model.model + " is below its quota of " +
                  gpus_text(model.quota),
              format("write limit = %u or more, or a smaller quota", model.quota));
      }
    }
    if (double(quotas) > queue.quota + 1e-6) {
      error(queue.quota_at.line != 0 ? queue.quota_at : queue.at,
            "the quotas of queue '" + queue.name + "' for models are " + gpus_text(double(quotas)) +
                " together, its own is " + gpus_text(queue.quota) + ", and they are part of it",
            format("write quota = %lu or more", (unsigned long)quotas));
    }
    const auto found = children_.find(queue.name);
    if (found != children_.end() && by_name_.at(queue.name) == &queue) children_by_model(queue, found->second);
  }

  void children_by_model(const QueueConfig& queue, const std::vector<const QueueConfig*>& children) {
    std::vector<std::string> seen;
    for (const QueueConfig* child : children) {
      for (const ModelQuota& model : child->models) {
        const auto same = [&](const std::string& other) { return is_same_model(other, model.model); };
        if (model.quota == 0 || std::any_of(seen.begin(), seen.end(), same)) continue;
        seen.push_back(model.model);
        const uint64_t own = quota_for(queue, model.model);
        uint64_t all = 0;
        for (const QueueConfig* each : children) all += quota_for(*each, model.model);
        if (all <= own) continue;
        error(model.quota_at,
              "the quotas of the queues in '" + queue.name + "' for model " + model.model + " are " +
                  gpus_text(double(all)) + " together, its own is " + gpus_text(double(own)),
              format("write models = { \"%s\" = { quota = %lu } } for '%s', or less for its children",
                     model.model.c_str(), (unsigned long)all, queue.name.c_str()));
      }
    }
  }

  static uint64_t quota_for(const QueueConfig& queue, const std::string& model) {
    for (const ModelQuota& each : queue.models) {
      if (is_same_model(each.model, model)) return each.quota;
    }
    return 0;
  }

  // Its children, and the pool's of all.
  void beside(const QueueConfig& queue) {
    const auto found = children_.find(queue.name);
    if (found == children_.end() || by_name_.at(queue.name) != &queue) return;
    double quotas = 0;
    for (const QueueConfig* child : found->second) quotas += child->quota;
    if (quotas > queue.quota + 1e-6) {
      error(queue.quota_at.line != 0 ? queue.quota_at : queue.at,
            "the quotas of the queues in '" + queue.name + "' are " + gpus_text(quotas) + " together, its own is " +
                gpus_text(queue.quota),
            format("write quota = %g, or less for its children", quotas));
    }
  }

  const std::vector<QueueConfig>& queues_;
  std::string path_;
  std::map<std::string, const QueueConfig*> by_name_;
  std::map<std::string, std::vector<const QueueConfig*>> children_;  // of those whose way up ends at the pool
  std::vector<ConfigError> errors_;
};

}  // namespace

std::vector<ConfigError> check_queues(const std::vector<QueueConfig>& queues, const std::string& path) {
  return QueueCheck(queues, path).run();
}

}  // namespace tide::sched
