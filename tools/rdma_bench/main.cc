// rdma-bench: what the fabric between two machines can do, what is wrong with it, and what that means for jobs.

#include <signal.h>

#include "base/log.h"
#include "tools/rdma_bench/client.h"
#include "tools/rdma_bench/fields.h"
#include "tools/rdma_bench/machine.h"
#include "tools/rdma_bench/serve.h"
#include "tools/rdma_bench/settings.h"
#include "tools/tide/options.h"

namespace {

int print_devices(bool as_json) {
  tide::fabric::Machine machine = tide::fabric::this_machine();
  if (!as_json) {
    tide::fabric::print_machine(machine);
    return tide::cli::kOk;
  }
  tide::cli::Json json;
  tide::fabric::JsonFields fields(json.object());
  machine.fields(fields);
  json.end().print();
  return tide::cli::kOk;
}

}  // namespace

int main(int argc, char** argv) {
  tide::set_log_name("rdma-bench");
  signal(SIGPIPE, SIG_IGN);
  setvbuf(stdout, nullptr, _IOLBF, 0);
  tide::fabric::Settings settings;
  int status = tide::cli::kOk;
  if (!tide::fabric::parse_settings({argv + 1, argv + argc}, &settings, &status)) return status;
  if (settings.mode == tide::fabric::Mode::kServe) return tide::fabric::serve(settings);
  if (settings.mode == tide::fabric::Mode::kDevices) return print_devices(settings.json);
  return tide::fabric::measure(settings);
}
