#include "tools/tide/import.h"

#include <stdio.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "base/log.h"
#include "scheduler/config.h"
#include "tools/tide/commands.h"
#include "tools/tide/options.h"

namespace tide::cli {
namespace {

constexpr double kKaiPriority = 100;  // where none is given

// As it may stand in a line of a file that somebody else reads.
std::string plain(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < ' ' || c == '"' || c == '\\' || c == 0x7f) c = '?';
  }
  return text.substr(0, 200);
}

std::string gpus_text(double gpus) { return format("%g", gpus); }

double thousandths(double gpus) { return std::round(gpus * 1000) / 1000; }

// A quota or a limit: -1 or nothing is none. False: no number.
bool read_amount(const Node& node, ImportedQueue* queue, const char* what, std::optional<double>* amount) {
  amount->reset();
  if (!node.there()) return true;
  double value = 0;
  if (!node.number(&value) || (value < 0 && value != -1)) {
    queue->notes.push_back(
        {node.line(), format("%s '", what) + node.text().substr(0, 40) + "' is no number of GPUs: left out"});
    return false;
  }
  if (value < 0) return true;
  if (std::abs(thousandths(value) - value) > 1e-9)
    queue->notes.push_back({node.line(), format("%s %g is rounded to thousandths", what, value)});
  *amount = thousandths(value);
  return true;
}

void read_weight(const Node& node, ImportedQueue* queue) {
  if (!node.there()) return;
  double value = 0;
  if (node.number(&value) && value >= 0) {
    queue->config.over_quota_weight = value;
  } else {
    queue->notes.push_back(
        {node.line(), "over-quota weight '" + node.text().substr(0, 40) + "' is no weight: 1 is taken"});
  }
}

// Of processors and memory, which are not shared out here.
void note_other_resource(const std::string& what, const Node& node, ImportedQueue* queue) {
  for (const char* key : {"quota", "limit", "deserved"}) {
    double value = 0;
    if (node[key].number(&value) && value > 0)
      queue->notes.push_back({node[key].line(), what + " " + key + " is left out: only GPUs are shared out here"});
  }
}

void read_gpus(const Node& gpu, const char* quota_key, ImportedQueue* queue) {
  std::optional<double> quota;
  if (read_amount(gpu[quota_key], queue, "quota", &quota)) {
    queue->unlimited_quota = !quota && gpu[quota_key].there();
    queue->config.quota = quota.value_or(0);
  }
  (void)read_amount(gpu["limit"], queue, "limit", &queue->config.limit);
  read_weight(gpu["overQuotaWeight"], queue);
}

void note_unknown(const Node& map, const std::set<std::string>& known, const std::string& where, ImportedQueue* queue) {
  for (const auto& [key, value] : map.members()) {
    if (known.count(key) == 0)
      queue->notes.push_back({value.line(), where + "'" + key.substr(0, 40) + "' is left out"});
  }
}

// There is one here, whoever it is that takes: the longer of them.
void read_min_runtime(const Node& node, const std::string& key, ImportedQueue* queue) {
  sched::TurnRules time;
  if (!node.there()) return;
  const std::string text = node.text().substr(0, 40);
  if (!sched::parse_turns(text, &time) || time.fixed_ms == 0) {
    queue->notes.push_back({node.line(), key + " " + text + " is left out: it is no time like 90s, 10m or 2h"});
    return;
  }
  queue->config.min_runtime_ms = std::max(queue->config.min_runtime_ms.value_or(0), time.fixed_ms);
}

ImportedQueue read_kai_queue(const Node& object, bool* has_priority) {
  ImportedQueue queue;
  const Node spec = object["spec"], resources = spec["resources"];
  queue.config.name = object["metadata"]["name"].text();
  queue.config.at = {object.line(), 1};
  queue.config.parent = spec["parentQueue"].text();
  queue.config.parent_at = {spec["parentQueue"].line(), 1};
  if (spec["displayName"].there())
    queue.notes.push_back(
        {spec["displayName"].line(), "displayName '" + spec["displayName"].text().substr(0, 80) + "'"});
  double priority = kKaiPriority;
  *has_priority |= spec["priority"].there();
  if (spec["priority"].there() && (!spec["priority"].number(&priority) || std::abs(priority) > 1e6))
    queue.notes.push_back({spec["priority"].line(), "this priority is no number: 100 is taken"});
  queue.config.priority = int32_t(priority);
  for (const char* key : {"preemptMinRuntime", "reclaimMinRuntime"}) read_min_runtime(spec[key], key, &queue);
  read_gpus(resources["gpu"], "quota", &queue);
  if (!resources["gpu"].there())
    queue.notes.push_back({object.line(), "no GPUs are said: no quota and no limit are taken"});
  for (const char* key : {"cpu", "memory"}) note_other_resource(key, resources[key], &queue);
  note_unknown(resources, {"gpu", "cpu", "memory"}, "resource ", &queue);
  note_unknown(spec, {"displayName", "parentQueue", "resources", "priority", "preemptMinRuntime", "reclaimMinRuntime"},
               "", &queue);
  return queue;
}

void add_kai(const Node& object, Import* import, bool* has_priority) {
  const std::string kind = object["kind"].text();
  if (kind == "Queue" && object["metadata"]["name"].there()) {
    import->queues.push_back(read_kai_queue(object, has_priority));
  } else if (kind == "List" || kind == "QueueList") {
    for (const Node& item : object["items"].items()) add_kai(item, import, has_priority);
  } else if (object.there()) {
    const std::string what = kind == "Queue" ? "a Queue without a name" : "kind '" + kind.substr(0, 40) + "'";
    import->notes.push_back({object.line(), what + " is left out: only Queues are read"});
  }
}

int32_t runai_priority(const Node& node, ImportedQueue* queue) {
  static const std::map<std::string, int32_t> kRanks{{"verylow", -2}, {"low", -1}, {"normal", 0},
                                                     {"medium", 0},   {"high", 1}, {"veryhigh", 2}};
  std::string word;
  for (const char c : node.text()) {
    if (isalpha(static_cast<unsigned char>(c)) != 0) word += char(tolower(c));
  }
  double number = 0;
  if (node.number(&number) && std::abs(number) <= 1e6) return int32_t(number);
  const auto found = kRanks.find(word);
  if (found != kRanks.end()) return found->second;
  if (node.there()) queue->notes.push_back({node.line(), "priority '" + node.text().substr(0, 40) + "' is left out"});
  return 0;
}

// Which GPUs are in a pool of nodes its name does not say for sure.
void note_models(const std::vector<Node>& pools, uint32_t line, ImportedQueue* queue) {
  std::string models;
  for (const Node& pool : pools) {
    double quota = 0, limit = 0;
    const bool has_quota = pool["gpu"]["deserved"].number(&quota) && quota > 0;
    const bool has_limit = pool["gpu"]["limit"].number(&limit) && limit > 0;
    if (!has_quota && !has_limit) continue;
    models += (models.empty() ? "" : ", ") + pool["nodePool"]["name"].text().substr(0, 40) + " = { ";
    if (has_quota) models += format("quota = %.0f", quota);
    if (has_limit) models += format("%slimit = %.0f", has_quota ? ", " : "", limit);
    models += " }";
  }
  if (!models.empty())
    queue->notes.push_back({line, "where these differ by GPU model, write its words: models = { " + models + " }"});
}

// One entry for each pool of nodes, which are one pool here.
void read_node_pools(const Node& resources, ImportedQueue* queue) {
  const std::vector<Node> pools = resources.items();
  if (pools.size() > 1) {
    queue->notes.push_back(
        {resources.line(), format("the GPUs of %zu node pools are added up: there is one pool here", pools.size())});
    note_models(pools, resources.line(), queue);
  }
  double quota = 0, limit = 0;
  bool limited = !pools.empty(), unlimited = false;
  for (const Node& pool : pools) {
    read_gpus(pool["gpu"], "deserved", queue);
    unlimited |= queue->unlimited_quota;
    quota += queue->config.quota;
    limited &= queue->config.limit.has_value();
    limit += queue->config.limit.value_or(0);
    if (pool["priority"].there()) queue->config.priority = runai_priority(pool["priority"], queue);
    for (const char* key : {"cpu", "memory"}) note_other_resource(key, pool[key], queue);
  }
  queue->unlimited_quota = unlimited;
  queue->config.quota = thousandths(quota);
  queue->config.limit.reset();
  if (limited) queue->config.limit = thousandths(limit);
}

ImportedQueue read_runai_unit(const Node& unit) {
  ImportedQueue queue;
  queue.config.name = unit["name"].text();
  queue.config.at = {unit.line(), 1};
  if (unit["resources"].is_list()) {
    read_node_pools(unit["resources"], &queue);
  } else {  // as the older API has it
    std::optional<double> quota;
    if (read_amount(unit["deservedGpus"], &queue, "deservedGpus", &quota)) {
      queue.unlimited_quota = !quota && unit["deservedGpus"].there();
      queue.config.quota = quota.value_or(0);
    }
    (void)read_amount(unit["maxAllowedGpus"], &queue, "maxAllowedGpus", &queue.config.limit);
    read_weight(unit["gpuOverQuotaWeight"], &queue);
  }
  for (const char* key : {"schedulingRules", "nodeTypes", "defaultNodePools", "nodeAffinity", "permissions",
                          "interactiveJobTimeLimitSecs", "trainNodeAffinity", "interactiveNodeAffinity"}) {
    const Node value = unit[key];
    const bool empty = (value.is_map() && value.members().empty()) || (value.is_list() && value.items().empty());
    if (value.there() && !empty) queue.notes.push_back({value.line(), std::string(key) + " is left out"});
  }
  return queue;
}

// The queue of a project's department; empty: it has none that is in the file.
std::string department_of(const Node& project, const std::map<std::string, std::string>& by_id, ImportedQueue* queue) {
  for (const char* key : {"parentId", "departmentId", "departmentName"}) {
    if (!project[key].there()) continue;
    const auto found = by_id.find(project[key].text());
    if (found != by_id.end()) return found->second;
    queue->notes.push_back({project[key].line(), std::string(key) + " '" + project[key].text().substr(0, 64) +
                                                     "' is no department of this file: it has no parent"});
    return "";
  }
  return "";
}

}  // namespace

Import import_kai(const std::vector<Node>& roots) {
  Import import;
  bool has_priority = false;
  for (const Node& root : roots) add_kai(root, &import, &has_priority);
  for (ImportedQueue& queue : import.queues) {
    if (!has_priority) queue.config.priority = 0;  // all are alike
  }
  return import;
}

Import import_runai(const std::vector<Node>& roots) {
  Import import;
  std::vector<Node> departments, projects;
  for (const Node& root : roots) {
    for (const Node& item : root["departments"].items()) departments.push_back(item);
    for (const Node& item : root["projects"].items()) projects.push_back(item);
    for (const Node& item : root.items()) projects.push_back(item);
    if (!root.is_list() && !root["departments"].is_list() && !root["projects"].is_list())
      import.notes.push_back({root.line(), "neither 'projects' nor 'departments' are here"});
  }
  std::set<std::string> names;
  for (const Node& project : projects) names.insert(project["name"].text());
  std::map<std::string, std::string> by_id;  // also by name, which older answers have
  for (const Node& department : departments) {
    ImportedQueue queue = read_runai_unit(department);
    const std::string name = queue.config.name;
    if (names.count(name) != 0) {
      queue.config.name += "-department";
      queue.notes.push_back(
          {department.line(), "department '" + name + "' has another name here: a project has the same"});
    }
    by_id[name] = by_id[department["id"].text()] = queue.config.name;
    import.queues.push_back(std::move(queue));
  }
  for (const Node& project : projects) {
    ImportedQueue queue = read_runai_unit(project);
    queue.config.parent = department_of(project, by_id, &queue);
    import.queues.push_back(std::move(queue));
  }
  return import;
}

void settle_quotas(Import* import) {
  // Up the tree, as often as it may be deep.
  for (uint32_t level = 0; level < sched::kQueueLevelsMax; ++level) {
    for (ImportedQueue& queue : import->queues) {
      double children = 0;
      for (const ImportedQueue& other : import->queues) {
        if (other.config.parent == queue.config.name) children += other.config.quota;
      }
      children = thousandths(children);
      if (children <= queue.config.quota) continue;
      if (!queue.unlimited_quota) {
        queue.notes.push_back({queue.config.at.line, "its quota of " + gpus_text(queue.config.quota) +
                                                         " was less than " + gpus_text(children) +
                                                         ", which those below it have together"});
      }
      queue.config.quota = children;
    }
  }
  for (ImportedQueue& queue : import->queues) {
    if (queue.unlimited_quota) {
      queue.notes.push_back({queue.config.at.line,
                             "its quota was unlimited, which cannot be said here: " + gpus_text(queue.config.quota) +
                                 " is what those below it need; beyond that its weight counts"});
    }
    if (queue.config.limit && *queue.config.limit < queue.config.quota) {
      queue.notes.push_back({queue.config.at.line, "its limit of " + gpus_text(*queue.config.limit) +
                                                       " was below its quota, which is the limit now"});
      queue.config.limit = queue.config.quota;
    }
  }
}

std::string toml_of(const Import& import, const std::string& source) {
  std::string text = "# Queues of " + plain(source) + "; `tide config import` wrote this.\n";
  for (const ImportNote& note : import.notes) text += format("# line %u: ", note.line) + plain(note.text) + "\n";
  for (const ImportedQueue& queue : import.queues) {
    const sched::QueueConfig& config = queue.config;
    text += "\n";
    for (const ImportNote& note : queue.notes) text += format("# line %u: ", note.line) + plain(note.text) + "\n";
    text += "[[queue]]\nname = \"" + plain(config.name) + "\"\n";
    if (!config.parent.empty()) text += "parent = \"" + plain(config.parent) + "\"\n";
    text += "quota = " + gpus_text(config.quota) + "\n";
    if (config.limit) text += "limit = " + gpus_text(*config.limit) + "\n";
    if (config.over_quota_weight != 1) text += format("over_quota_weight = %g\n", config.over_quota_weight);
    if (config.min_runtime_ms)
      text += "min_runtime = \"" + sched::to_text({.on = true, .fixed_ms = *config.min_runtime_ms}) + "\"\n";
    if (config.priority != 0) text += format("priority = %d\n", config.priority);
  }
  return text;
}

int config_import(const Words& words) {
  constexpr const char* kHelp =
      "usage: tide config import --from kai FILE.yaml > pool.toml\n"
      "       tide config import --from runai FILE.json > pool.toml\n\n"
      "Prints the queues of another scheduler as a pool.toml: Queue objects of KAI (`kubectl get queues -o yaml`), or\n"
      "projects and departments of Run:ai as its API answers them ({\"projects\": [...], \"departments\": [...]}).\n"
      "What cannot be expressed is said in comments, and on standard error with file and line.\n";
  Options options;
  if (!options.parse(words, {{"from"}}, kHelp) || !options.expect_words(1, "one FILE")) return options.status();
  const std::string from = options.get("from"), path = options.words()[0];
  if (from != "kai" && from != "runai") return options.usage_error("--from is kai or runai");
  Documents documents;
  const Outcome outcome = documents.read(path);
  if (!outcome.ok()) return fail(outcome.message());
  Import import = from == "kai" ? import_kai(documents.roots()) : import_runai(documents.roots());
  if (import.queues.size() > sched::kQueuesMax) {
    return fail(path + format(": it has %zu queues; a pool has %zu at most", import.queues.size(), sched::kQueuesMax));
  }
  settle_quotas(&import);
  const auto say = [&](const ImportNote& note) {
    fprintf(stderr, "%s:%u: %s\n", path.c_str(), note.line, plain(note.text).c_str());
  };
  for (const ImportNote& note : import.notes) say(note);
  for (const ImportedQueue& queue : import.queues) std::for_each(queue.notes.begin(), queue.notes.end(), say);
  if (import.queues.empty()) return fail(path + ": there are no queues in it");
  const std::string text = toml_of(import, path);
  sched::PoolConfig ignored;
  const auto errors = sched::parse_config(text, "pool.toml", &ignored);
  fputs(text.c_str(), stdout);
  for (const sched::ConfigError& error : errors) fprintf(stderr, "%s\n", error.text().c_str());
  if (!errors.empty()) return fail("what was printed has errors that somebody must mend");
  return kOk;
}

}  // namespace tide::cli
