#include <stdio.h>

#include "tools/tide/commands.h"
#include "tools/tide/embedded.h"
#include "tools/tide/home.h"

namespace tide::cli {

int down(const Words& words) {
  constexpr const char* kHelp =
      "usage: tide down\n\n"
      "Stops the pool that `tide up` started on this machine. Running jobs end; the record of jobs stays.\n";
  Options options;
  if (!options.parse(words, {}, kHelp) || !options.expect_words(0, "")) return options.status();
  bool was_running = false;
  const std::string home = home_directory();
  const Outcome stopped = stop_pool(home, &was_running);
  if (!stopped.ok()) return fail(stopped.message());
  if (!was_running) return fail("no pool is running on this machine (in " + home + "); `tide up` starts one");
  puts("pool is down");
  return kOk;
}

}  // namespace tide::cli
