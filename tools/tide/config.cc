#include "scheduler/config.h"

#include <stdio.h>

#include "tools/tide/commands.h"
#include "tools/tide/options.h"

namespace tide::cli {

int config(const Words& words) {
  constexpr const char* kHelp =
      "usage: tide config check FILE\n"
      "       tide config import --from kai|runai FILE\n\n"
      "check lists everything that is wrong in a pool.toml, with line, column and a hint; import prints another\n"
      "scheduler's queues as a pool.toml.\n";
  if (!words.empty() && words[0] == "import") return config_import({words.begin() + 1, words.end()});
  Options options;
  if (!options.parse(words, {}, kHelp)) return options.status();
  if (!options.words().empty() && options.words()[0] == "apply") return fail("'config apply' is not available yet");
  if (options.words().size() != 2 || options.words()[0] != "check") return options.usage_error("expects: check FILE");
  sched::PoolConfig read;
  const auto errors = sched::read_config(options.words()[1], &read);
  for (const sched::ConfigError& error : errors) fprintf(stderr, "%s\n", error.text().c_str());
  if (!errors.empty()) return kFailed;
  printf("%s: ok\n", options.words()[1].c_str());
  return kOk;
}

}  // namespace tide::cli
