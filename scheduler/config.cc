#include "scheduler/config.h"

#define TOML_EXCEPTIONS 0
#include <toml++/toml.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/log.h"

namespace tide::sched {
namespace {

constexpr const char* kPoolKeys[] = {"listen", "door", "state"};
constexpr const char* kLaterTables[] = {"queue", "server", "policy", "price", "auth"};

// Letters to change, to add or to take away between two words.
size_t distance(const std::string& a, const std::string& b) {
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

std::string hint_for(const std::string& key) {
  std::string best;
  size_t least = 3;
  for (const char* known : kPoolKeys) {
    const size_t d = distance(key, known);
    if (d < least) {
      least = d;
      best = known;
    }
  }
  if (!best.empty()) return "did you mean '" + best + "'?";
  return "known here: listen, door, state";
}

bool is_address(const std::string& text) {
  const size_t colon = text.rfind(':');
  if (text.rfind("unix:", 0) == 0) return text.size() > 5;
  if (colon == std::string::npos || colon == 0 || colon + 1 == text.size()) return false;
  const std::string port = text.substr(colon + 1);
  return port.size() <= 5 && std::all_of(port.begin(), port.end(), [](char c) { return c >= '0' && c <= '9'; }) &&
         std::stoul(port) <= 65535;
}

class Reader {
 public:
  Reader(std::string path, std::vector<ConfigError>* errors) : path_(std::move(path)), errors_(errors) {}

  void error(const toml::source_region& at, std::string message, std::string hint) {
    errors_->push_back({path_, at.begin.line, at.begin.column, std::move(message), std::move(hint)});
  }

  void pool(const toml::table& table, PoolConfig* config) {
    for (const auto& [key, node] : table) {
      const std::string name(key.str());
      std::string* field = name == "listen"  ? &config->listen
                           : name == "door"  ? &config->door
                           : name == "state" ? &config->state
                                             : nullptr;
      if (field == nullptr) {
        error(key.source(), "unknown key '" + name + "' in [pool]", hint_for(name));
      } else if (!node.is_string()) {
        error(node.source(), "'" + name + "' must be text", "write " + name + " = \"...\"");
      } else {
        *field = **node.as_string();
        if (name != "state" && !is_address(*field)) {
          error(node.source(), "'" + *field + "' is no address", "write " + name + " = \"127.0.0.1:7411\"");
        }
        if (name == "state" && field->empty()) error(node.source(), "'state' is empty", "name a directory");
      }
    }
  }

  void root(const toml::table& table, PoolConfig* config) {
    for (const auto& [key, node] : table) {
      const std::string name(key.str());
      const bool later =
          std::any_of(std::begin(kLaterTables), std::end(kLaterTables), [&](const char* k) { return name == k; });
      if (name == "pool" && node.is_table()) {
        pool(*node.as_table(), config);
      } else if (name == "pool") {
        error(node.source(), "'pool' must be a table", "write [pool] on a line of its own");
      } else if (later) {
        error(key.source(), "'" + name + "' is not available yet", "leave it out; this version knows [pool] only");
      } else {
        const bool misplaced = distance(name, "listen") < 2 || name == "door" || name == "state";
        error(key.source(), "unknown key '" + name + "'",
              misplaced ? "it belongs under [pool]" : "this version knows [pool] only");
      }
    }
  }

 private:
  std::string path_;
  std::vector<ConfigError>* errors_;
};

}  // namespace

std::string ConfigError::text() const {
  std::string out = file;
  if (line != 0) out += format(":%u:%u", line, column);
  return out + ": " + message + (hint.empty() ? "" : "; " + hint);
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
  std::sort(errors.begin(), errors.end(), [](const ConfigError& a, const ConfigError& b) {
    return std::pair(a.line, a.column) < std::pair(b.line, b.column);
  });
  if (errors.empty()) *config = read;
  return errors;
}

std::vector<ConfigError> read_config(const std::string& path, PoolConfig* config) {
  errno = 0;
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) {
    return {{path, 0, 0, std::string("cannot be read: ") + strerror(errno == 0 ? EIO : errno),
             "check the path and its permissions"}};
  }
  return parse_config(text.str(), path, config);
}

}  // namespace tide::sched
