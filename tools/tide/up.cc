#include <stdio.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>

#include "base/log.h"
#include "tools/tide/commands.h"
#include "tools/tide/embedded.h"
#include "tools/tide/home.h"

namespace tide::cli {

int up(const Words& words) {
  constexpr const char* kHelp =
      "usage: tide up [--gpus N] [--gpu-memory SIZE] [--servers K] [--config FILE]\n\n"
      "Starts a pool on this machine: a scheduler and K agents (default 1) with N GPUs in all. These are the\n"
      "machine's GPUs where it has any, else software GPUs (default 4). Returns when the pool is ready.\n"
      "  --gpu-memory SIZE  memory of a software GPU, like 512MiB or 2GiB\n"
      "  --config FILE      pool.toml; the K servers are node0, node1 ...\n"
      "Everything of it lies in $TIDE_HOME, else $XDG_RUNTIME_DIR/tidepool, else /tmp/tidepool-UID.\n";
  Options options;
  if (!options.parse(words, {{"gpus"}, {"gpu-memory"}, {"servers"}, {"config"}}, kHelp)) return options.status();
  EmbeddedOptions wanted;
  wanted.home = home_directory();
  wanted.gpu_memory = options.get("gpu-memory");
  uint64_t memory = 0;
  if (!options.expect_words(0, "") || !options.number("gpus", 1, 1024, &wanted.gpus) ||
      !options.number("servers", 1, 64, &wanted.servers) || !options.size("gpu-memory", &memory)) {
    return options.status();
  }
  if (options.has("config")) {
    char full[PATH_MAX];
    if (realpath(options.get("config").c_str(), full) == nullptr)
      return fail("there is no file " + options.get("config"));
    wanted.config = full;
  }
  EmbeddedPool pool;
  const Outcome started = start_pool(wanted, &pool);
  if (!started.ok()) return fail(started.message());
  printf("pool is up: %u %sGPU%s on %u server%s, scheduler at %s\n", pool.gpus, pool.software ? "software " : "",
         pool.gpus == 1 ? "" : "s", wanted.servers, wanted.servers == 1 ? "" : "s", pool.address.c_str());
  printf("  run a program on it:  tide run -g %u -- ./program\n", pool.gpus);
  printf("  see what happens:     tide status\n");
  printf("  stop it:              tide down\n");
  printf("  logs and records:     %s\n", wanted.home.c_str());
  return kOk;
}

}  // namespace tide::cli
