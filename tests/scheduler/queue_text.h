#pragma once

// Trees of queues in one line, for tables of tests: "8 gpus; a quota4 limit6; b weight2 prio1 in a; c hard". "hard" is
// not preemptible. What its jobs do, for shares alone: "wants6" GPUs in all, "has2" of them, "used0.5" of the pool in
// the past. Amounts may be fractions. "H200:quota4 H200:limit8": of GPUs of a model.

#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include "scheduler/shares.h"
#include "tests/scheduler/policy_text.h"

namespace tide::sched {

// The number behind `key`, where the word begins with that.
inline bool number_behind(const std::string& word, const std::string& key, double* number) {
  if (word.rfind(key, 0) != 0) return false;
  char* end = nullptr;
  *number = strtod(word.c_str() + key.size(), &end);
  return end != word.c_str() + key.size() && *end == 0;
}

struct QueueText {
  QueueConfig config;
  QueueLoad load;
};

inline QueueText parse_queue(const std::string& text) {
  QueueText queue;
  std::istringstream in(text);
  in >> queue.config.name;
  for (std::string word; in >> word;) {
    double number = 0;
    if (word == "in") {
      in >> queue.config.parent;
    } else if (word == "hard") {
      queue.config.preemptible = false;
    } else if (word.find(':') != std::string::npos) {  // "H200:quota4", "H200:limit8"
      const std::string model = word.substr(0, word.find(':')), what = word.substr(word.find(':') + 1);
      auto& models = queue.config.models;
      auto found = std::find_if(models.begin(), models.end(), [&](const ModelQuota& m) { return m.model == model; });
      if (found == models.end()) found = models.insert(models.end(), {.model = model});
      if (number_behind(what, "quota", &number)) found->quota = uint32_t(number);
      if (number_behind(what, "limit", &number)) found->limit = uint32_t(number);
    } else if (number_behind(word, "quota", &number)) {
      queue.config.quota = number;
    } else if (number_behind(word, "limit", &number)) {
      queue.config.limit = number;
    } else if (number_behind(word, "weight", &number)) {
      queue.config.over_quota_weight = number;
    } else if (number_behind(word, "prio", &number)) {
      queue.config.priority = int32_t(number);
    } else if (number_behind(word, "wants", &number)) {
      queue.load.demand = int64_t(number * 1000);
    } else if (number_behind(word, "has", &number)) {
      queue.load.allocated = int64_t(number * 1000);
    } else if (number_behind(word, "used", &number)) {
      queue.load.used = number;
    } else {
      ADD_FAILURE() << "'" << word << "' is no word of a queue";
    }
  }
  return queue;
}

struct Sharing {
  QueueTree tree;
  QueueShares shares;
  int64_t pool = 0;
  int32_t operator[](const std::string& name) const { return tree.find(name); }
};

inline Sharing share(const std::string& text) {
  Sharing sharing;
  const std::vector<std::string> parts = split(text, ';');
  sharing.pool = int64_t(std::stod(parts.at(0)) * 1000);
  std::vector<QueueConfig> configs;
  std::vector<QueueText> queues;
  for (size_t i = 1; i < parts.size(); ++i) queues.push_back(parse_queue(parts[i]));
  for (const QueueText& queue : queues) configs.push_back(queue.config);
  sharing.tree = make_tree(configs);
  std::vector<QueueLoad> loads(configs.size());
  for (const QueueText& queue : queues) loads[size_t(sharing.tree.find(queue.config.name))] = queue.load;
  sharing.shares = fair_shares(sharing.tree, loads, sharing.pool);
  return sharing;
}

}  // namespace tide::sched
