#include "scheduler/config.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <span>

#include "base/limits.h"
#include "base/log.h"
#include "scheduler/addresses.h"
#include "scheduler/config_tables.h"
#include "scheduler/state.h"

namespace tide::sched {
namespace {

enum class Kind : uint8_t {
  kPath,
  kAddress,
  kAddresses,
  kName,
  kNumber,
  kSize,
  kRate,
  kStore,
  kTurns,
  kTime,
  kTimeOrOff,
  kClass,
  kOrder,
  kWord,
  kGpus,
  kWeight,
  kRank,
  kBool,
  kLabels,
  kJournal,
  kPrice,
  kPrices,
  kKeep,
  kTables
};

struct Key {
  const char* name;
  Kind kind;
  uint64_t least = 0, most = 0;  // of a number
};

constexpr Key kPoolKeys[] = {{"listen", Kind::kAddress}, {"door", Kind::kAddress}, {"state", Kind::kPath},
                             {"store", Kind::kStore},    {"turns", Kind::kTurns},  {"history", Kind::kPath}};
constexpr Key kServerKeys[] = {{"name", Kind::kName},           {"scheduler", Kind::kAddresses},
                               {"listen", Kind::kAddress},      {"directory", Kind::kPath},
                               {"ready_file", Kind::kPath},     {"softgpu_devices", Kind::kNumber, 1, 64},
                               {"softgpu_memory", Kind::kSize}, {"image_cache_mib", Kind::kNumber, 0, 1u << 24},
                               {"park_directory", Kind::kPath}, {"park_memory_mib", Kind::kNumber, 0, 1u << 24},
                               {"move_rate", Kind::kRate},      {"hold_s", Kind::kNumber, 0, 86'400},
                               {"labels", Kind::kLabels},       {"switch", Kind::kWord}};
constexpr const char *kLabelsKey = "labels", *kSwitchKey = "switch";
constexpr Key kQueueKeys[] = {
    {"name", Kind::kWord},        {"parent", Kind::kWord},   {"quota", Kind::kGpus},
    {"limit", Kind::kGpus},       {"priority", Kind::kRank}, {"over_quota_weight", Kind::kWeight},
    {"preemptible", Kind::kBool}, {"class", Kind::kClass},   {"min_runtime", Kind::kTimeOrOff},
    {"models", Kind::kTables}};
constexpr Key kPolicyKeys[] = {{"half_life", Kind::kTime},        {"past_weight", Kind::kWeight},
                               {"min_runtime", Kind::kTimeOrOff}, {"disturbances_per_hour", Kind::kNumber, 0, 1000},
                               {"idle_return", Kind::kTimeOrOff}, {"consolidate", Kind::kBool},
                               {"journal", Kind::kJournal},       {"order", Kind::kOrder}};
constexpr Key kPriceKeys[] = {{"default", Kind::kPrice}, {"currency", Kind::kWord}, {"model", Kind::kPrices}};
constexpr Key kHistoryKeys[] = {{"keep", Kind::kKeep}};
constexpr const char *kBySubmission = "submission", *kByEstimates = "estimates";
constexpr const char* kPricesKey = "model";
constexpr const char* kLaterTables[] = {"auth"};
constexpr const char* kTables = "[pool], [policy], [history], [price], [[queue]], [[reservation]] and [[server]]";

constexpr double kGpusMost = 1e6, kWeightMost = 1e6;
constexpr int64_t kRankMost = 1'000'000;
constexpr uint64_t kRateLeast = 1u << 20, kRateMost = uint64_t(1) << 50;  // bytes a second
constexpr uint64_t kJournalLeast = 1u << 20, kJournalMost = uint64_t(1) << 40;
constexpr size_t kShownBytesMax = 80;  // of a value in a message

// The keys of one kind of table.
struct Table {
  const char* title;
  std::span<const Key> keys;
};
constexpr Table kPool{"[pool]", kPoolKeys}, kServer{"[[server]]", kServerKeys}, kQueue{"[[queue]]", kQueueKeys},
    kPolicy{"[policy]", kPolicyKeys}, kPrice{"[price]", kPriceKeys}, kHistory{"[history]", kHistoryKeys};

const Key* find_key(const Table& table, const std::string& name) {
  for (const Key& key : table.keys) {
    if (name == key.name) return &key;
  }
  return nullptr;
}

// Letters to change, to add or to take away between two words.
size_t distance(const std::string& a, const std::string& b) {
  if (a.size() > kShownBytesMax) return a.size();
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

std::string hint_for(const Table& table, const std::string& name) {
  std::string best, all;
  size_t least = 3;
  for (const Key& key : table.keys) {
    all += (all.empty() ? "" : ", ") + std::string(key.name);
    if (const size_t d = distance(name, key.name); d < least) {
      least = d;
      best = key.name;
    }
  }
  return best.empty() ? "known here: " + all : "did you mean '" + best + "'?";
}

bool is_digits(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool is_address(const std::string& text) {
  const size_t colon = text.rfind(':');
  if (text.rfind("unix:", 0) == 0) return text.size() > 5;
  if (colon == std::string::npos || colon == 0) return false;
  const std::string port = text.substr(colon + 1);
  return port.size() <= 5 && is_digits(port) && std::stoul(port) <= 65535;
}

bool are_addresses(const std::string& text) {
  const Addresses list(text);
  return std::all_of(list.all().begin(), list.all().end(), is_address);
}

// "16GiB", "512 MiB" is not.
bool is_size(const std::string& text) {
  char* end = nullptr;
  const double number = strtod(text.c_str(), &end);
  const std::string unit = end;
  return end != text.c_str() && number > 0 && number <= 1e18 &&
         (unit.empty() || unit == "KiB" || unit == "MiB" || unit == "GiB" || unit == "TiB");
}

// Of a text that is_size().
double size_of(const std::string& text) {
  char* end = nullptr;
  const double number = strtod(text.c_str(), &end);
  const std::string unit = end, units[] = {"", "KiB", "MiB", "GiB", "TiB"};
  const auto* const found = std::find(std::begin(units), std::end(units), unit);
  return std::ldexp(number, int(10 * (found - std::begin(units))));
}

// "64MiB"; 0: "off". False: neither, or too little to be one.
bool parse_journal(const std::string& text, uint64_t* bytes) {
  *bytes = 0;
  if (text == "off") return true;
  if (!is_size(text)) return false;
  const double size = size_of(text);
  if (size < double(kJournalLeast) || size > double(kJournalMost)) return false;
  *bytes = uint64_t(size);
  return true;
}

// "2GiB/s"; 0: "0" or "off". False: none of them, or too little to be one.
bool parse_rate(const std::string& text, uint64_t* bytes_per_s) {
  *bytes_per_s = 0;
  if (text == "off" || text == "0") return true;
  if (!text.ends_with("/s")) return false;
  const std::string size = text.substr(0, text.size() - 2);
  if (!is_size(size) || size_of(size) < double(kRateLeast) || size_of(size) > double(kRateMost)) return false;
  *bytes_per_s = uint64_t(size_of(size));
  return true;
}

bool is_number(const Key& key, const std::string& text) {
  return is_digits(text) && text.size() <= 12 && std::stoull(text) >= key.least && std::stoull(text) <= key.most;
}

bool is_word(const std::string& text) {
  const auto plain = [](char c) { return isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.'; };
  return !text.empty() && text.size() < kIdBytes && std::all_of(text.begin(), text.end(), plain);
}

// Thousandths of a GPU are told apart, and less than kPartLeast of them is no part that a job can have.
bool is_gpus(double gpus) {
  const double thousandths = gpus * kWholeGpu;
  return gpus >= 0 && gpus <= kGpusMost && std::abs(thousandths - std::round(thousandths)) < 1e-6 &&
         (gpus == 0 || std::round(thousandths) >= kPartLeast);
}

// Words of letters and digits, as in a GPU's name.
bool is_model_name(const std::string& text) {
  const auto plain = [](char c) {
    return isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.' || c == ' ';
  };
  return !text.empty() && text.size() < kIdBytes && isalnum(static_cast<unsigned char>(text.front())) &&
         std::all_of(text.begin(), text.end(), plain);
}

bool is_weight(double weight) { return weight >= 0 && weight <= kWeightMost; }

// "off" is 0.
std::optional<uint64_t> time_or_off(const std::string& text) {
  TurnRules rules;
  if (text == "off") return 0;
  return parse_turns(text, &rules) && rules.fixed_ms != 0 ? std::optional(rules.fixed_ms) : std::nullopt;
}

bool fits(const Key& key, const std::string& text) {
  switch (key.kind) {
    case Kind::kWord:
      return is_word(text);
    case Kind::kGpus:
      return is_gpus(strtod(text.c_str(), nullptr));
    case Kind::kWeight:
    case Kind::kPrice:
      return is_weight(strtod(text.c_str(), nullptr));
    case Kind::kPrices:
      return false;  // a table
    case Kind::kKeep:
      return parse_keep(text).has_value();
    case Kind::kRank:
      return std::abs(strtod(text.c_str(), nullptr)) <= double(kRankMost);
    case Kind::kBool:
    case Kind::kTables:
      return true;
    case Kind::kLabels:
      return is_label(text);
    case Kind::kTime: {
      TurnRules rules;
      return parse_turns(text, &rules) && rules.fixed_ms != 0;
    }
    case Kind::kTimeOrOff:
      return time_or_off(text).has_value();
    case Kind::kClass: {
      JobClass ignored;
      return parse_job_class(text, &ignored);
    }
    case Kind::kOrder:
      return text == kBySubmission || text == kByEstimates;
    case Kind::kPath:
      return !text.empty();
    case Kind::kAddress:
      return is_address(text);
    case Kind::kAddresses:
      return are_addresses(text);
    case Kind::kStore: {
      PoolConfig ignored;
      return read_store(text, &ignored).ok();
    }
    case Kind::kName:
      return !text.empty() && text.size() < kIdBytes && text.find('/') == std::string::npos;
    case Kind::kNumber:
      return is_number(key, text);
    case Kind::kSize:
      return is_size(text);
    case Kind::kRate: {
      uint64_t ignored = 0;
      return parse_rate(text, &ignored);
    }
    case Kind::kTurns: {
      TurnRules ignored;
      return parse_turns(text, &ignored);
    }
    case Kind::kJournal: {
      uint64_t ignored = 0;
      return parse_journal(text, &ignored);
    }
  }
  return false;
}

// What the text of this key is, if it fits.
std::string kind_text(const Key& key) {
  switch (key.kind) {
    case Kind::kWord:
      return "name of 1 to 63 letters, digits, '-', '_' and '.'";
    case Kind::kGpus:
      return format("number of GPUs from 0 to %.0f, in thousandths of one, and not between 0 and %g", kGpusMost,
                    double(kPartLeast) / kWholeGpu);
    case Kind::kWeight:
      return format("number from 0 to %.0f", kWeightMost);
    case Kind::kPrice:
    case Kind::kPrices:
      return format("price of a GPU-hour, from 0 to %.0f", kWeightMost);
    case Kind::kKeep:
      return "time of whole days or hours, like 400d or 12h";
    case Kind::kRank:
      return format("whole number from %ld to %ld", long(-kRankMost), long(kRankMost));
    case Kind::kBool:
      return "true or false";
    case Kind::kTables:
      return "table";
    case Kind::kLabels:
      return "label (KEY=VALUE of letters, digits, '-', '_', '.' and '/', 1 to 63 each)";
    case Kind::kTime:
      return "time";
    case Kind::kTimeOrOff:
      return "time (or off)";
    case Kind::kClass:
      return "class (batch, interactive or inference)";
    case Kind::kOrder:
      return "order (submission or estimates)";
    case Kind::kPath:
      return "path";
    case Kind::kAddress:
    case Kind::kAddresses:
      return "address";
    case Kind::kStore:
      return "store (sqlite, or etcd://ADDRESS:PORT,...)";
    case Kind::kName:
      return "name of 1 to 63 characters without '/'";
    case Kind::kNumber:
      return format("number from %llu to %llu", (unsigned long long)key.least, (unsigned long long)key.most);
    case Kind::kSize:
      return "size";
    case Kind::kRate:
      return "rate (1MiB/s to 1024TiB/s, or off)";
    case Kind::kTurns:
      return "way to take turns (off, auto, or how long each is)";
    case Kind::kJournal:
      return "size of a journal (1MiB to 1TiB, or off)";
  }
  return "";
}

std::string example(const Key& key) {
  switch (key.kind) {
    case Kind::kWord:
      return "\"research\"";
    case Kind::kGpus:
      return "4";
    case Kind::kWeight:
      return "1";
    case Kind::kRank:
      return "0";
    case Kind::kPrice:
    case Kind::kPrices:
      return "2.5";
    case Kind::kKeep:
      return "\"400d\"";
    case Kind::kBool:
      return "true";
    case Kind::kTables:
      return "{ H200 = { quota = 4, limit = 8 } }";
    case Kind::kLabels:
      return "[\"rack=a\"]";
    case Kind::kTime:
      return "\"24h\"";
    case Kind::kTimeOrOff:
      return "\"10m\"";
    case Kind::kClass:
      return "\"interactive\"";
    case Kind::kOrder:
      return "\"estimates\"";
    case Kind::kPath:
      return "\"/run/tide\"";
    case Kind::kAddress:
      return "\"127.0.0.1:7411\"";
    case Kind::kAddresses:
      return "\"10.0.0.1:7411,10.0.0.2:7411\"";
    case Kind::kStore:
      return "\"etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379\"";
    case Kind::kName:
      return "\"gpu1\"";
    case Kind::kNumber:
      return std::to_string(std::max<uint64_t>(key.least, 1));
    case Kind::kSize:
      return "\"16GiB\"";
    case Kind::kRate:
      return "\"2GiB/s\"";
    case Kind::kTurns:
      return "\"auto\"";
    case Kind::kJournal:
      return "\"64MiB\"";
  }
  return "";
}

// What a value of this kind is in TOML.
struct Type {
  const char* name;
  bool (*is)(const toml::node&);
  std::string (*text)(const toml::node&);
};

constexpr Type kText{"text", [](const toml::node& n) { return n.is_string(); },
                     [](const toml::node& n) { return **n.as_string(); }};
constexpr Type kInteger{"a number", [](const toml::node& n) { return n.is_integer(); },
                        [](const toml::node& n) { return std::to_string(**n.as_integer()); }};
constexpr Type kWhole{"a whole number", kInteger.is, kInteger.text};
constexpr Type kReal{
    "a number", [](const toml::node& n) { return n.is_number(); },
    [](const toml::node& n) { return n.is_integer() ? kInteger.text(n) : format("%.12g", **n.as_floating_point()); }};
constexpr Type kTruth{"true or false", [](const toml::node& n) { return n.is_boolean(); },
                      [](const toml::node& n) { return std::string(**n.as_boolean() ? "true" : "false"); }};

const Type& type_of(const Key& key) {
  switch (key.kind) {
    case Kind::kNumber:
      return kInteger;
    case Kind::kRank:
      return kWhole;
    case Kind::kGpus:
    case Kind::kWeight:
    case Kind::kPrice:
      return kReal;
    case Kind::kBool:
      return kTruth;
    default:
      return kText;
  }
}

std::string shown(const std::string& text) {
  return text.size() <= kShownBytesMax ? text : text.substr(0, kShownBytesMax) + "...";
}

FilePlace place_of(const toml::source_region& at) { return {at.begin.line, at.begin.column}; }

class Reader {
 public:
  Reader(std::string path, std::vector<ConfigError>* errors) : path_(std::move(path)), errors_(errors) {}

  void root(const toml::table& table, PoolConfig* config) {
    for (const auto& [key, node] : table) {
      const std::string name(key.str());
      const bool later =
          std::any_of(std::begin(kLaterTables), std::end(kLaterTables), [&](const char* k) { return name == k; });
      if (name == "pool" && node.is_table()) {
        pool(*node.as_table(), config);
      } else if (name == "pool") {
        error(node.source(), "'pool' must be a table", "write [pool] on a line of its own");
      } else if (name == "server" && node.is_array_of_tables()) {
        for (const toml::node& element : *node.as_array()) server(*element.as_table(), config);
      } else if (name == "server") {
        error(node.source(), "'server' must be a list of tables", "write [[server]] on a line of its own");
      } else if (name == "queue" && node.is_array_of_tables()) {
        for (const toml::node& element : *node.as_array()) queue(*element.as_table(), config);
      } else if (name == "queue") {
        error(node.source(), "'queue' must be a list of tables", "write [[queue]] on a line of its own");
      } else if (name == "reservation" && node.is_array_of_tables()) {
        const ConfigSink sink{path_, errors_};
        for (const toml::node& element : *node.as_array()) read_reservation(*element.as_table(), sink, config);
      } else if (name == "reservation") {
        error(node.source(), "'reservation' must be a list of tables", "write [[reservation]] on a line of its own");
      } else if (name == "policy" && node.is_table()) {
        policy(*node.as_table(), config);
      } else if (name == "policy") {
        error(node.source(), "'policy' must be a table", "write [policy] on a line of its own");
      } else if (name == "price" && node.is_table()) {
        price(*node.as_table(), config);
      } else if (name == "history" && node.is_table()) {
        history(*node.as_table(), config);
      } else if (name == "price" || name == "history") {
        error(node.source(), "'" + name + "' must be a table", "write [" + name + "] on a line of its own");
      } else if (later) {
        error(key.source(), "'" + name + "' is not available yet",
              std::string("leave it out; this version knows ") + kTables + " only");
      } else {
        error(key.source(), "unknown key '" + shown(name) + "'", hint_for_root(name));
      }
    }
  }

 private:
  using Settings = std::map<std::string, std::string>;

  void error(const toml::source_region& at, std::string message, std::string hint) {
    errors_->push_back({path_, at.begin.line, at.begin.column, std::move(message), std::move(hint)});
  }

  static std::string hint_for_root(const std::string& name) {
    const bool is_pools = distance(name, "listen") < 2 || find_key(kPool, name) != nullptr;
    if (is_pools) return "it belongs under [pool]";
    if (find_key(kServer, name) != nullptr) return "it belongs under [[server]]";
    if (find_key(kQueue, name) != nullptr) return "it belongs under [[queue]]";
    if (find_key(kPolicy, name) != nullptr) return "it belongs under [policy]";
    if (find_key(kHistory, name) != nullptr) return "it belongs under [history]";
    if (find_key(kPrice, name) != nullptr) return "it belongs under [price]";
    return std::string("this version knows ") + kTables + " only";
  }

  void pool(const toml::table& table, PoolConfig* config) {
    Settings settings = read(kPool, table);
    for (const auto& [key, field] :
         std::initializer_list<std::pair<const char*, std::string*>>{{"listen", &config->listen},
                                                                     {"door", &config->door},
                                                                     {"state", &config->state},
                                                                     {"history", &config->history}}) {
      if (settings.count(key) != 0) *field = settings[key];
    }
    if (settings.count("store") != 0) (void)read_store(settings["store"], config);           // it fits
    if (settings.count("turns") != 0) (void)parse_turns(settings["turns"], &config->turns);  // it fits
  }

  void server(const toml::table& table, PoolConfig* config) {
    ServerConfig server{.name = "", .settings = read(kServer, table)};
    server.traits = {.labels = labels(table), .network_switch = server.settings[kSwitchKey]};
    server.settings.erase(kSwitchKey);
    const toml::node* name = table.get("name");
    if (name == nullptr) return error(table.source(), "a server without a name", "write name = \"gpu1\"");
    server.name = server.settings["name"];
    server.settings.erase("name");
    if (config->servers.size() >= kServersMax)
      return error(name->source(), "one server too many", format("a pool has %zu at most", kServersMax));
    for (const ServerConfig& other : config->servers) {
      if (other.name == server.name && !server.name.empty())
        return error(name->source(), "there are two servers '" + server.name + "'",
                     "an agent takes the one of its name");
    }
    config->servers.push_back(std::move(server));
  }

  std::set<std::string> labels(const toml::table& table) {
    const toml::node* const node = table.get(kLabelsKey);
    std::set<std::string> labels;
    if (node == nullptr) return labels;
    const Key& key = *find_key(kServer, kLabelsKey);
    const std::string hint = "write labels = " + example(key);
    if (!node->is_array()) {
      error(node->source(), "'labels' must be a list of texts", hint);
      return labels;
    }
    for (const toml::node& each : *node->as_array()) {
      const std::string text = each.is_string() ? **each.as_string() : "";
      if (!each.is_string()) {
        error(each.source(), "a label must be text", hint);
      } else if (!fits(key, text)) {
        error(each.source(), "'" + shown(text) + "' is no " + kind_text(key), hint);
      } else if (!labels.insert(text).second) {
        error(each.source(), "the label '" + shown(text) + "' stands there twice", "leave one out");
      }
    }
    return labels;
  }

  void queue(const toml::table& table, PoolConfig* config) {
    Settings settings = read(kQueue, table);
    if (!table.contains("name")) return error(table.source(), "a queue without a name", "write name = \"research\"");
    const auto place = [&](const char* key) {
      const toml::node* const node = table.get(key);
      return node == nullptr ? FilePlace() : place_of(node->source());
    };
    const auto number = [&](const char* key, double otherwise) {
      return settings.count(key) == 0 ? otherwise : strtod(settings[key].c_str(), nullptr);
    };
    QueueConfig queue{.name = settings["name"], .parent = settings["parent"], .quota = number("quota", 0)};
    if (settings.count("limit") != 0) queue.limit = number("limit", 0);
    queue.over_quota_weight = number("over_quota_weight", 1);
    queue.priority = int32_t(number("priority", 0));
    queue.preemptible = settings["preemptible"] != "false";
    if (settings.count("min_runtime") != 0) queue.min_runtime_ms = time_or_off(settings["min_runtime"]);
    JobClass job_class;
    if (parse_job_class(settings["class"], &job_class)) queue.job_class = job_class;
    if (const toml::node* const models = table.get("models"))
      queue.models = read_models(*models, ConfigSink{path_, errors_});
    queue.at = place("name");
    queue.parent_at = place("parent");
    queue.quota_at = place("quota");
    queue.limit_at = place("limit");
    if (!queue.name.empty()) config->queues.push_back(std::move(queue));  // of one that has none, that was said
  }

  void policy(const toml::table& table, PoolConfig* config) {
    const Settings settings = read(kPolicy, table);
    TurnRules time;
    if (settings.count("half_life") != 0 && parse_turns(settings.at("half_life"), &time))
      config->policy.half_life_ms = time.fixed_ms;
    if (settings.count("past_weight") != 0)
      config->policy.past_weight = strtod(settings.at("past_weight").c_str(), nullptr);
    if (settings.count("min_runtime") != 0) config->policy.min_runtime_ms = time_or_off(settings.at("min_runtime"));
    if (settings.count("disturbances_per_hour") != 0)
      config->policy.disturbances_per_hour = uint32_t(std::stoul(settings.at("disturbances_per_hour")));
    if (settings.count("idle_return") != 0)
      config->policy.idle_return_ms = time_or_off(settings.at("idle_return")).value_or(kIdleReturnMs);
    config->policy.consolidate = settings.count("consolidate") == 0 || settings.at("consolidate") != "false";
    config->policy.by_estimates = settings.count("order") != 0 && settings.at("order") == kByEstimates;
    if (settings.count("journal") != 0) (void)parse_journal(settings.at("journal"), &config->policy.journal_bytes);
  }

  void history(const toml::table& table, PoolConfig* config) {
    const Settings settings = read(kHistory, table);
    if (settings.count("keep") != 0) config->history_keep_ms = *parse_keep(settings.at("keep"));  // it fits
  }

  void price(const toml::table& table, PoolConfig* config) {
    const Settings settings = read(kPrice, table);
    if (settings.count("default") != 0) config->price.otherwise = strtod(settings.at("default").c_str(), nullptr);
    if (settings.count("currency") != 0) config->price.currency = settings.at("currency");
    const toml::node* const models = table.get(kPricesKey);
    if (models == nullptr) return;
    if (!models->is_table())
      return error(models->source(), "'model' must be a table", "write [price.model] on a line of its own");
    for (const auto& [key, node] : *models->as_table()) {
      const std::string name(key.str());
      const std::string hint = "write " + (name.find(' ') == std::string::npos ? name : "\"" + name + "\"") + " = 4.0";
      if (!is_model_name(name)) {
        error(key.source(), "'" + shown(name) + "' cannot be words of a GPU's name", "write H200 = 4.0");
      } else if (!kReal.is(node)) {
        error(node.source(), "the price of '" + shown(name) + "' must be a number", hint);
      } else if (const std::string text = kReal.text(node); !fits({"", Kind::kPrice}, text)) {
        error(node.source(), "'" + shown(text) + "' is no " + kind_text({"", Kind::kPrice}), hint);
      } else {
        config->price.models[name] = strtod(text.c_str(), nullptr);
      }
    }
  }

  // What fits; the rest are errors.
  Settings read(const Table& table, const toml::table& from) {
    Settings settings;
    for (const auto& [node_key, node] : from) {
      const std::string name(node_key.str());
      const Key* const key = find_key(table, name);
      if (key == nullptr) {
        error(node_key.source(), "unknown key '" + shown(name) + "' in " + table.title, hint_for(table, name));
        continue;
      }
      if (key->kind == Kind::kLabels || key->kind == Kind::kPrices || key->kind == Kind::kTables)
        continue;  // labels(), price(), read_models()
      const Type& type = type_of(*key);
      if (!type.is(node)) {
        error(node.source(), "'" + name + "' must be " + type.name,
              "write " + name + " = " + (&type == &kText ? "\"...\"" : example(*key)));
        continue;
      }
      const std::string text = type.text(node);
      if (fits(*key, text)) {
        settings[name] = text;
      } else {
        error(node.source(), "'" + shown(text) + "' is no " + kind_text(*key), "write " + name + " = " + example(*key));
      }
    }
    return settings;
  }

  std::string path_;
  std::vector<ConfigError>* errors_;
};

}  // namespace

std::string ConfigError::text() const {
  std::string out = file;
  if (line != 0) out += format(":%u:%u", line, column);
  return out + ": " + message + (hint.empty() ? "" : "; " + hint);
}

Outcome read_store(const std::string& text, PoolConfig* config) {
  config->etcd = {};
  return text == "sqlite" ? Outcome() : parse_etcd(text, &config->etcd);
}

Outcome check_store(const PoolConfig& config) {
  if (config.etcd.members.empty()) return {};
  const auto is_here = [](const std::string& address) {
    return address.rfind("127.", 0) == 0 || address.rfind("localhost:", 0) == 0 || address.rfind("[::1]:", 0) == 0;
  };
  const bool all_here = std::all_of(config.etcd.members.begin(), config.etcd.members.end(), is_here);
  for (const std::string& address : {config.listen, config.door}) {
    const std::string host = address.substr(0, address.rfind(':'));
    if (host == "0.0.0.0" || host == "*" || host == "[::]" || host == "::" || address.rfind("unix:", 0) == 0) {
      return Outcome::fail(
          "with a store in etcd others are told where to find this scheduler: listen on an address of "
          "this machine, not on " +
          address);
    }
    if (is_here(address) && !all_here) {
      return Outcome::fail(
          "the etcd is on another machine, and with it others that look for this scheduler: `listen` "
          "and `door` must be addresses that they reach, not " +
          address);
    }
  }
  return {};
}

Outcome check_server_setting(const std::string& key, const std::string& text) {
  const Key* const known = find_key(kServer, key);
  if (known == nullptr) return Outcome::fail("there is no option '" + key + "'; " + hint_for(kServer, key));
  if (key == kLabelsKey || key == kSwitchKey)
    return Outcome::fail("the scheduler reads '" + key + "' from its pool.toml; an agent has no such option");
  if (fits(*known, text)) return {};
  return Outcome::fail("'" + text + "' is no " + kind_text(*known) + "; write " + example(*known));
}

uint64_t rate_bytes(const std::string& text) {
  uint64_t bytes_per_s = 0;
  return parse_rate(text, &bytes_per_s) ? bytes_per_s : 0;
}

std::vector<ConfigError> parse_config(const std::string& text, const std::string& path, PoolConfig* config) {
  std::vector<ConfigError> errors;
  const toml::parse_result parsed = toml::parse(text, path);
  if (!parsed) {
    const auto& begin = parsed.error().source().begin;
    errors.push_back({path, begin.line, begin.column, std::string(parsed.error().description()), "this is not TOML"});
    return errors;
  }
  PoolConfig read;
  Reader(path, &errors).root(parsed.table(), &read);
  for (ConfigError& error : check_queues(read.queues, path)) errors.push_back(std::move(error));
  for (ConfigError& error : check_reservations(read, path)) errors.push_back(std::move(error));
  std::stable_sort(errors.begin(), errors.end(), [](const ConfigError& a, const ConfigError& b) {
    return std::pair(a.line, a.column) < std::pair(b.line, b.column);
  });
  if (errors.empty()) *config = read;
  if (errors.size() > kConfigErrorsMax) {
    const size_t more = errors.size() - kConfigErrorsMax;
    errors.resize(kConfigErrorsMax);
    errors.push_back({path, 0, 0, format("and %zu more errors", more), "mend these first"});
  }
  return errors;
}

std::vector<ConfigError> read_config_text(const std::string& path, std::string* text) {
  errno = 0;
  std::ifstream file(path);
  std::string read(kConfigBytesMax + 1, 0);
  file.read(read.data(), std::streamsize(read.size()));
  read.resize(size_t(file.gcount()));
  if (!file.is_open() || file.bad()) {
    return {{path, 0, 0, std::string("cannot be read: ") + strerror(errno == 0 ? EIO : errno),
             "check the path and its permissions"}};
  }
  if (read.size() > kConfigBytesMax) {
    return {{path, 0, 0, format("is larger than %zu MiB", kConfigBytesMax >> 20), "this is no pool.toml"}};
  }
  *text = std::move(read);
  return {};
}

std::vector<ConfigError> read_config(const std::string& path, PoolConfig* config) {
  std::string text;
  std::vector<ConfigError> errors = read_config_text(path, &text);
  return errors.empty() ? parse_config(text, path, config) : errors;
}

}  // namespace tide::sched
