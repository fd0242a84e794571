#pragma once

// The command line of one subcommand.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace tide::cli {

inline constexpr int kOk = 0, kFailed = 1, kUsage = 2;
inline constexpr int kTidepoolFailed = 125, kNotExecutable = 126, kNotFound = 127;  // of `tide run`

struct OptionSpec {
  const char* name;  // without the dashes
  char letter = 0;   // -g
  bool takes_value = true;
  bool repeats = false;  // several values are one, with commas between
};

class Options {
 public:
  // False: the caller exits with status(); what was wrong, or the help, has been printed.
  // `stop_at_word`: the first word that is no option ends the options (`tide run ... COMMAND --its-own`).
  bool parse(const std::vector<std::string>& words, const std::vector<OptionSpec>& specs, const char* help,
             bool stop_at_word = false);
  int status() const { return status_; }

  bool has(const std::string& name) const { return values_.count(name) != 0; }
  std::string get(const std::string& name, const std::string& otherwise = "") const;
  const std::vector<std::string>& words() const { return words_; }

  // These print what is wrong and set status() when the text does not parse or the count of words differs.
  bool number(const std::string& name, uint32_t least, uint32_t most, uint32_t* value);
  bool size(const std::string& name, uint64_t* bytes);
  bool duration(const std::string& name, uint64_t* ms);
  bool expect_words(size_t count, const char* what);

  // Prints "tide COMMAND: MESSAGE", then where the help is; the answer is kUsage. (Another program than tide: its name
  // from the help's first line.)
  int usage_error(const std::string& message);

 private:
  bool take(const std::vector<std::string>& words, size_t* i, const std::vector<OptionSpec>& specs, const char* help);

  std::map<std::string, std::string> values_;
  std::vector<std::string> words_;
  std::string command_;
  int status_ = kOk;
};

std::optional<uint64_t> parse_count(const std::string& text);
std::optional<uint32_t> parse_thousandths(
    const std::string& text);                                  // "0.25": 250; three digits behind the point at most
std::optional<uint64_t> parse_size(const std::string& text);   // "512MiB", "2GiB", "4096"
std::optional<double> parse_seconds(const std::string& text);  // "500ms", "30s", "10m", "2h", "30"
std::string size_text(uint64_t bytes);                         // "12.4 MiB"
std::string duration_text(uint64_t ms);                        // "3 min 20 s"

// Prints "tide: MESSAGE" on standard error; the answer is `status`.
int fail(const std::string& message, int status = kFailed);

}  // namespace tide::cli
