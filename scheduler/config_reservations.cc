// [[reservation]] of pool.toml.

#include <time.h>

#include <algorithm>

#include "base/limits.h"
#include "base/log.h"
#include "scheduler/config_tables.h"

namespace tide::sched {
namespace {

constexpr const char* kKeys = "name, gpus, gpu_model, labels, from, until, user, queue, exclusive";
constexpr const char* kExample = "2026-11-24T20:00:00Z";

bool is_name(const std::string& text) {
  const auto plain = [](char c) { return isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.'; };
  return !text.empty() && text.size() < kIdBytes && std::all_of(text.begin(), text.end(), plain);
}

std::string shown(const std::string& text) { return text.size() <= 80 ? text : text.substr(0, 80) + "..."; }

class Reading {
 public:
  Reading(const toml::table& table, const ConfigSink& sink) : table_(table), sink_(sink) {}

  ReservationConfig run() {
    for (const auto& [key, node] : table_) take(std::string(key.str()), key, node);
    for (const char* key : {"gpus", "from", "until"}) {
      if (table_.contains(key)) continue;
      sink_.error(table_.source(), "reservation '" + shown(read_.is.name) + "' has no '" + key + "'",
                  std::string("write ") + key + " = " + (std::string(key) == "gpus" ? "4" : kExample));
    }
    const bool times = read_.is.from_ms != 0 && read_.is.until_ms != 0;
    if (times && read_.is.until_ms <= read_.is.from_ms) {
      error(*table_.get("until"), "reservation '" + read_.is.name + "' ends before it begins",
            "write a later 'until', or an earlier 'from'");
    }
    return std::move(read_);
  }

 private:
  void error(const toml::node& node, std::string message, std::string hint) {
    sink_.error(node.source(), std::move(message), std::move(hint));
  }

  void take(const std::string& key, const toml::key& at, const toml::node& node) {
    Reservation& is = read_.is;
    if (key == "name") {
      if (text(node, key, "\"night\"", &is.name) && !is_name(is.name)) {
        error(node, "'" + shown(is.name) + "' is no name of 1 to 63 letters, digits, '-', '_' and '.'",
              "write name = \"night\"");
      }
      read_.at = {node.source().begin.line, node.source().begin.column};
    } else if (key == "gpus") {
      gpus(node);
    } else if (key == "gpu_model") {
      if (text(node, key, "\"H200\"", &is.require.model) && !is_model_text(is.require.model))
        error(node, "'" + shown(is.require.model) + "' are no words of a GPU's name", "write gpu_model = \"H200\"");
    } else if (key == "labels") {
      for (const auto& [label, place] : texts(node, key)) {
        if (is_label(label)) {
          is.require.labels.insert(label);
        } else {
          sink_.error(place, "'" + shown(label) + "' is no label", "write labels = [\"rack=a\"]");
        }
      }
    } else if (key == "from" || key == "until") {
      moment(node, key, key == "from" ? &is.from_ms : &is.until_ms);
    } else if (key == "user" || key == "queue") {
      names(node, key, key == "user" ? &read_.users : &read_.queues);
      if (key == "queue") read_.queues_at = {node.source().begin.line, node.source().begin.column};
    } else if (key == "exclusive") {
      if (node.is_boolean()) {
        is.exclusive = **node.as_boolean();
      } else {
        error(node, "'exclusive' must be true or false", "write exclusive = true");
      }
    } else {
      sink_.error(at.source(), "unknown key '" + shown(key) + "' in [[reservation]]",
                  std::string("known here: ") + kKeys);
    }
  }

  bool text(const toml::node& node, const std::string& key, const char* example, std::string* into) {
    if (node.is_string()) {
      *into = **node.as_string();
      return true;
    }
    error(node, "'" + key + "' must be text", "write " + key + " = " + example);
    return false;
  }

  void gpus(const toml::node& node) {
    const int64_t count = node.is_integer() ? **node.as_integer() : 0;
    if (count >= 1 && count <= int64_t(kReservedGpusMax)) {
      read_.is.gpus = uint32_t(count);
    } else if (node.is_number()) {
      error(node, format("'gpus' of a reservation is a whole number from 1 to %u", kReservedGpusMax),
            "write gpus = 4; jobs with parts of a GPU may share what is reserved");
    } else {
      error(node, "'gpus' must be a number", "write gpus = 4");
    }
  }

  // One text, or a list of them.
  std::vector<std::pair<std::string, toml::source_region>> texts(const toml::node& node, const std::string& key) {
    std::vector<std::pair<std::string, toml::source_region>> found;
    const auto take = [&](const toml::node& each) {
      std::string text;
      if (this->text(each, key, "\"...\", or a list of such texts", &text)) found.emplace_back(text, each.source());
    };
    if (!node.is_array()) {
      take(node);
      return found;
    }
    for (const toml::node& each : *node.as_array()) take(each);
    return found;
  }

  void names(const toml::node& node, const std::string& key, std::vector<std::string>* into) {
    for (const auto& [name, place] : texts(node, key)) {
      if (name.empty() || name.size() >= kIdBytes) {
        sink_.error(place, "'" + shown(name) + "' is no " + key, "write its name");
      } else if (std::find(into->begin(), into->end(), name) != into->end()) {
        sink_.error(place, "the " + key + " '" + name + "' stands there twice", "leave one out");
      } else {
        into->push_back(name);
      }
    }
    if (node.is_array() && node.as_array()->empty())
      error(node, "nobody could use it: '" + key + "' is an empty list",
            "name some, or leave it out: then everybody may");
  }

  void moment(const toml::node& node, const std::string& key, uint64_t* ms) {
    const std::string hint = "write " + key + " = " + kExample + ", without quotes";
    if (node.is_date()) return error(node, "'" + key + "' needs a time of day, too", hint);
    if (!node.is_date_time()) return error(node, "'" + key + "' must be a date with a time", hint);
    if (!read_moment(**node.as_date_time(), ms)) error(node, "there is no such moment", hint);
  }

  const toml::table& table_;
  const ConfigSink& sink_;
  ReservationConfig read_;
};

std::string moment_text(uint64_t ms) {
  const time_t seconds = time_t(ms / 1000);
  struct tm parts {};
  char text[32] = "";
  if (gmtime_r(&seconds, &parts) != nullptr) strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S UTC", &parts);
  return text;
}

}  // namespace

bool read_moment(const toml::date_time& at, uint64_t* ms) {
  struct tm parts {};
  parts.tm_year = int(at.date.year) - 1900;
  parts.tm_mon = int(at.date.month) - 1;
  parts.tm_mday = int(at.date.day);
  parts.tm_hour = int(at.time.hour);
  parts.tm_min = int(at.time.minute);
  parts.tm_sec = int(at.time.second);
  parts.tm_isdst = -1;
  const time_t seconds =
      at.offset ? timegm(&parts) - time_t(at.offset->minutes) * 60 : mktime(&parts);  // summer time is looked up
  if (seconds <= 0) return false;
  *ms = uint64_t(seconds) * 1000 + at.time.nanosecond / 1'000'000;
  return true;
}

std::string to_text(const ReservationConfig& reservation) {
  const Reservation& is = reservation.is;
  std::string text = format("%u GPU%s", is.gpus, is.gpus == 1 ? "" : "s");
  if (is.require.any()) text += " (" + to_text(is.require) + ")";
  text += " from " + moment_text(is.from_ms) + " until " + moment_text(is.until_ms);
  for (const std::string& user : reservation.users) text += ", user " + user;
  for (const std::string& queue : reservation.queues) text += ", queue " + queue;
  return text + (is.exclusive ? ", exclusive" : "");
}

void read_reservation(const toml::table& table, const ConfigSink& sink, PoolConfig* config) {
  ReservationConfig read = Reading(table, sink).run();
  if (!table.contains("name"))
    return sink.error(table.source(), "a reservation without a name", "write name = \"night\"");
  if (config->reservations.size() >= kReservationsMax)
    return sink.error(table.source(), "one reservation too many", format("a pool has %zu at most", kReservationsMax));
  for (const ReservationConfig& other : config->reservations) {
    if (other.is.name == read.is.name && !read.is.name.empty()) {
      return sink.error(table.get("name")->source(), "there are two reservations '" + read.is.name + "'",
                        format("the other one is in line %u", other.at.line));
    }
  }
  config->reservations.push_back(std::move(read));  // where it has errors nothing of it will count
}

std::vector<ConfigError> check_reservations(const PoolConfig& config, const std::string& path) {
  std::vector<ConfigError> errors;
  for (const ReservationConfig& reservation : config.reservations) {
    for (const std::string& name : reservation.queues) {
      const bool there = std::any_of(config.queues.begin(), config.queues.end(),
                                     [&](const QueueConfig& queue) { return queue.name == name; });
      if (there || (config.queues.empty() && name == kDefaultQueue)) continue;
      errors.push_back({path, reservation.queues_at.line, reservation.queues_at.column,
                        "there is no queue '" + name + "' for reservation '" + reservation.is.name + "'",
                        "write a [[queue]] with that name, or another one's"});
    }
  }
  return errors;
}

}  // namespace tide::sched
