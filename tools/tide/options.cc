#include "tools/tide/options.h"

#include <stdio.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/log.h"

namespace tide::cli {
namespace {

struct Unit {
  const char* name;
  uint64_t bytes;
};
constexpr Unit kUnits[] = {
    {"TiB", 1ull << 40}, {"GiB", 1ull << 30}, {"MiB", 1ull << 20}, {"KiB", 1ull << 10}, {"B", 1}};

// "tide run" of "usage: tide run ...", the name alone of a program without commands.
std::string command_in(const char* help) {
  const std::string text(help);
  const size_t start = std::min(text.find(' '), text.size() - 1) + 1;
  size_t end = text.find_first_of(" \n", start);
  if (text.compare(start, end - start, "tide") == 0 && end != std::string::npos)
    end = text.find_first_of(" \n", end + 1);
  return text.substr(start, end - start);
}

}  // namespace

std::optional<uint64_t> parse_count(const std::string& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

std::optional<uint32_t> parse_thousandths(const std::string& text) {
  const size_t point = text.find('.');
  if (point == std::string::npos || point == 0 || point > 6) return std::nullopt;
  std::string digits = text.substr(point + 1);
  if (digits.empty() || digits.size() > 3) return std::nullopt;
  digits.resize(3, '0');
  const auto whole = parse_count(text.substr(0, point)), rest = parse_count(digits);
  if (!whole || !rest) return std::nullopt;
  return uint32_t(*whole * 1000 + *rest);
}

std::optional<uint64_t> parse_size(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  if (error != std::errc() || value <= 0) return std::nullopt;
  std::string unit(end, text.data() + text.size());
  if (unit.empty()) unit = "B";
  for (const Unit& known : kUnits) {
    if (unit != known.name) continue;
    const double bytes = value * double(known.bytes);
    if (bytes < 1 || bytes > double(1ull << 60)) return std::nullopt;
    return uint64_t(bytes);
  }
  return std::nullopt;
}

std::optional<double> parse_seconds(const std::string& text) {
  static constexpr std::pair<const char*, double> kTimes[] = {{"", 1},   {"ms", 1e-3}, {"s", 1},
                                                              {"m", 60}, {"min", 60},  {"h", 3600}};
  double value = 0;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, value, std::chars_format::fixed);
  if (error != std::errc() || !(value >= 0 && value <= 1e9)) return std::nullopt;
  for (const auto& [unit, factor] : kTimes) {
    if (std::string(end, last) == unit) return value * factor;
  }
  return std::nullopt;
}

std::string size_text(uint64_t bytes) {
  for (const Unit& unit : kUnits) {
    if (bytes < unit.bytes || unit.bytes == 1) continue;
    const double value = double(bytes) / double(unit.bytes);
    return format(value == std::floor(value) ? "%.0f %s" : "%.1f %s", value, unit.name);
  }
  return format("%lu B", (unsigned long)bytes);
}

std::string duration_text(uint64_t ms) {
  const uint64_t s = ms / 1000;
  if (s < 60) return format("%lu s", (unsigned long)s);
  if (s < 3600) return format("%lu min %lu s", (unsigned long)(s / 60), (unsigned long)(s % 60));
  return format("%lu h %lu min", (unsigned long)(s / 3600), (unsigned long)(s / 60 % 60));
}

int fail(const std::string& message, int status) {
  fprintf(stderr, "tide: %s\n", message.c_str());
  return status;
}

int Options::usage_error(const std::string& message) {
  fprintf(stderr, "%s: %s; see %s --help\n", command_.c_str(), message.c_str(), command_.c_str());
  return status_ = kUsage;
}

// One word that begins with a dash.
bool Options::take(const std::vector<std::string>& words, size_t* i, const std::vector<OptionSpec>& specs,
                   const char* help) {
  const std::string& word = words[*i];
  const bool is_long = word.rfind("--", 0) == 0;
  const size_t equals = is_long ? word.find('=') : std::string::npos;
  const std::string name =
      is_long ? word.substr(2, equals == std::string::npos ? equals : equals - 2) : word.substr(1, 1);
  if (name == "help" || name == "h") {
    fputs(help, stdout);
    status_ = kOk;
    return false;
  }
  for (const OptionSpec& spec : specs) {
    if (is_long ? name != spec.name : spec.letter == 0 || name[0] != spec.letter) continue;
    if (!spec.takes_value) {
      if (equals != std::string::npos || (!is_long && word.size() > 2)) break;
      values_[spec.name] = "";
      return true;
    }
    const std::string earlier = spec.repeats && has(spec.name) ? values_[spec.name] + "," : "";
    if (equals != std::string::npos) {
      values_[spec.name] = earlier + word.substr(equals + 1);
    } else if (!is_long && word.size() > 2) {
      values_[spec.name] = earlier + word.substr(2);
    } else if (*i + 1 < words.size()) {
      values_[spec.name] = earlier + words[++*i];
    } else {
      usage_error(word + " needs a value");
      return false;
    }
    return true;
  }
  usage_error("option " + word + " is not understood");
  return false;
}

bool Options::parse(const std::vector<std::string>& words, const std::vector<OptionSpec>& specs, const char* help,
                    bool stop_at_word) {
  command_ = command_in(help);
  std::vector<OptionSpec> all = specs;
  if (command_.rfind("tide ", 0) == 0) all.push_back({"pool"});
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--" || (stop_at_word && (words[i].size() < 2 || words[i][0] != '-'))) {
      words_.insert(words_.end(), words.begin() + long(i) + (words[i] == "--" ? 1 : 0), words.end());
      return true;
    }
    if (words[i].size() < 2 || words[i][0] != '-') {
      words_.push_back(words[i]);
    } else if (!take(words, &i, all, help)) {
      return false;
    }
  }
  return true;
}

std::string Options::get(const std::string& name, const std::string& otherwise) const {
  const auto found = values_.find(name);
  return found == values_.end() ? otherwise : found->second;
}

bool Options::number(const std::string& name, uint32_t least, uint32_t most, uint32_t* value) {
  if (!has(name)) return true;
  const auto parsed = parse_count(get(name));
  if (!parsed || *parsed < least || *parsed > most) {
    usage_error(format("--%s must be a number from %u to %u, not '%s'", name.c_str(), least, most, get(name).c_str()));
    return false;
  }
  *value = uint32_t(*parsed);
  return true;
}

bool Options::size(const std::string& name, uint64_t* bytes) {
  if (!has(name)) return true;
  const auto parsed = parse_size(get(name));
  if (!parsed) {
    usage_error("--" + name + " must be a size like 512MiB or 2GiB, not '" + get(name) + "'");
    return false;
  }
  *bytes = *parsed;
  return true;
}

bool Options::duration(const std::string& name, uint64_t* ms) {
  if (!has(name)) return true;
  const auto parsed = parse_seconds(get(name));
  if (!parsed || *parsed < 1e-3) {
    usage_error("--" + name + " must be a time like 500ms, 30s, 10m or 2h, not '" + get(name) + "'");
    return false;
  }
  *ms = uint64_t(*parsed * 1e3);
  return true;
}

bool Options::expect_words(size_t count, const char* what) {
  if (words_.size() == count) return true;
  usage_error(count == 0 ? "'" + words_[0] + "' is not understood" : std::string("expects ") + what);
  return false;
}

}  // namespace tide::cli
