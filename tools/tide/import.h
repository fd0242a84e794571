#pragma once

// Queues of other schedulers as ours. What cannot be expressed is said, with the line.

#include <cstdint>
#include <string>
#include <vector>

#include "base/outcome.h"
#include "scheduler/queue_config.h"
#include "tools/tide/document.h"

namespace tide::cli {

struct ImportNote {
  uint32_t line = 0;
  std::string text;
};

struct ImportedQueue {
  sched::QueueConfig config;  // `at` is in the other scheduler's file
  bool unlimited_quota = false;
  std::vector<ImportNote> notes;
};

struct Import {
  std::vector<ImportedQueue> queues;
  std::vector<ImportNote> notes;  // of no queue
};

// Queue objects of KAI (scheduling.run.ai), in YAML documents or lists of them.
Import import_kai(const std::vector<Node>& roots);
// Projects and departments of Run:ai, as its API answers them.
Import import_runai(const std::vector<Node>& roots);

// Makes quotas fit those above them, and counts what had no limit.
void settle_quotas(Import* import);
// pool.toml with these queues, notes being comments. `source` is for the first line.
std::string toml_of(const Import& import, const std::string& source);

}  // namespace tide::cli
