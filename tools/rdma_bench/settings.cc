#include "tools/rdma_bench/settings.h"

#include "tools/rdma_bench/benchmarks.h"
#include "tools/rdma_bench/path.h"
#include "tools/tide/options.h"

namespace tide::fabric {
namespace {

constexpr const char* kHelp =
    "usage: rdma-bench serve [--listen ADDRESS] [--port N] [--timeout MS]\n"
    "       rdma-bench HOST [--port N] [--paths A,B] [--device A,B] [--tests A,B] [--duration MS]\n"
    "                       [--size-max SIZE] [--sizes A,B] [--timeout MS] [--spin] [--trace FILE]\n"
    "                       [--html FILE] [--json]\n"
    "       rdma-bench devices [--json]\n\n"
    "Measures the fabric between this machine and HOST, where `rdma-bench serve` runs, on every path that exists\n"
    "between the two, and says in words what is wrong, what that costs, how to mend it, and what it means for jobs.\n"
    "`devices` only says what this machine has.\n"
    "  --listen ADDRESS   where `serve` is reachable (default 127.0.0.1: this machine only). Who reaches it may "
    "measure\n"
    "                     and learn what `devices` prints; there is no password.\n"
    "  --port N           of the control connection (default 7471; with serve, 0: any, printed). TCP paths use "
    "further\n"
    "                     ports, which the system chooses.\n"
    "  --paths A,B        only these (`--paths list` names all of them)\n"
    "  --device A,B       only over these: mlx5_0, mlx5_0:1 (RDMA device and port), eth0. Several: each alone, then\n"
    "                     all together. The far end is the device in the same network, or A=FAR names it. Without\n"
    "                     this: by which the two sides reach each other; and where several networks join them, each\n"
    "                     alone and all together, too (bandwidth only)\n"
    "  --tests A,B        only these (`--tests list`)\n"
    "  --duration MS      of one measurement (default 300)\n"
    "  --size-max SIZE    of the largest message (default 16MiB)\n"
    "  --sizes A,B        exactly these, instead of each test's own\n"
    "  --timeout MS       the longest wait for the other side where nothing moves (default 10000)\n"
    "  --spin             both sides wait without ever giving up their cores, as perftest does: where each has its "
    "own\n"
    "  --trace FILE       what this fabric means for a job that `tide run --trace FILE` recorded\n"
    "  --html FILE        writes the figures with plots to one file that needs nothing else\n"
    "  --json             everything, for programs\n"
    "Status 1: something is wrong with the fabric, or it could not be measured; 2: the command line.\n";

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t at = 0; at <= text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    if (comma > at) parts.push_back(text.substr(at, comma - at));
    at = comma + 1;
  }
  return parts;
}

// `known`: name and title. "list" prints them.
bool choose(cli::Options& options, const char* option, const std::vector<std::pair<std::string, std::string>>& known,
            std::vector<std::string>* chosen) {
  if (!options.has(option)) return true;
  if (options.get(option) == "list") {
    for (const auto& [name, title] : known) printf("%-14s %s\n", name.c_str(), title.c_str());
    return false;
  }
  *chosen = split(options.get(option));
  for (const std::string& name : *chosen) {
    bool found = false;
    for (const auto& each : known) found |= each.first == name;
    if (found) continue;
    std::string all;
    for (const auto& each : known) all += (all.empty() ? "" : ", ") + each.first;
    options.usage_error("--" + std::string(option) + ": there is no '" + name + "'; there are: " + all);
    return false;
  }
  if (!chosen->empty()) return true;
  options.usage_error("--" + std::string(option) + " needs names");
  return false;
}

std::vector<std::pair<std::string, std::string>> path_names() {
  std::vector<std::pair<std::string, std::string>> names;
  for (const PathKind& kind : kPaths) names.emplace_back(kind.name, kind.title);
  return names;
}

std::vector<std::pair<std::string, std::string>> test_names() {
  std::vector<std::pair<std::string, std::string>> names;
  for (const Benchmark& benchmark : kBenchmarks) names.emplace_back(benchmark.name, benchmark.title);
  return names;
}

bool take_devices(cli::Options& options, Settings* settings) {
  for (const std::string& text : split(options.get("device"))) {
    const Outcome outcome = RailWish::parse(text, &settings->devices);
    if (outcome.ok()) continue;
    options.usage_error(outcome.message());
    return false;
  }
  return true;
}

bool take_sizes(cli::Options& options, Settings* settings) {
  bool ok = options.size("size-max", &settings->bytes_max);
  if (ok && (settings->bytes_max < kMessageMin || settings->bytes_max > kMessageMax)) {
    options.usage_error("--size-max must be from 8B to 256MiB");
    ok = false;
  }
  for (const std::string& text : split(options.get("sizes"))) {
    const std::optional<uint64_t> bytes = cli::parse_size(text);
    if (ok && (!bytes || *bytes < kMessageMin || *bytes > kMessageMax)) {
      options.usage_error("--sizes must be sizes from 8B to 256MiB, such as 8,64KiB, not '" + text + "'");
      return false;
    }
    if (ok) settings->sizes.push_back(*bytes);
  }
  return ok;
}

bool take_mode(cli::Options& options, Settings* settings) {
  if (!options.expect_words(1, "HOST, 'serve' or 'devices'")) return false;
  const std::string& word = options.words()[0];
  if (word == "serve") settings->mode = Mode::kServe;
  if (word == "devices") settings->mode = Mode::kDevices;
  settings->host = word;
  constexpr const char* kOfClient[] = {"paths", "device", "tests", "duration", "size-max",
                                       "sizes", "spin",   "trace", "html"};
  for (const char* name : kOfClient) {
    if (settings->mode == Mode::kClient || !options.has(name)) continue;
    options.usage_error("--" + std::string(name) + " goes with HOST, not with '" + word + "'");
    return false;
  }
  if (options.has("listen") && settings->mode != Mode::kServe) {
    options.usage_error("--listen goes with 'serve'");
    return false;
  }
  if (settings->mode == Mode::kServe && options.has("json")) {
    options.usage_error("--json goes with HOST or 'devices'");
    return false;
  }
  return true;
}

}  // namespace

bool parse_settings(const std::vector<std::string>& words, Settings* settings, int* status) {
  cli::Options options;
  const std::vector<cli::OptionSpec> specs = {
      {"listen"}, {"port"},    {"device"}, {"paths"}, {"tests"},          {"duration"},      {"size-max"},
      {"sizes"},  {"timeout"}, {"trace"},  {"html"},  {"spin", 0, false}, {"json", 0, false}};
  bool ok = options.parse(words, specs, kHelp);
  ok = ok && choose(options, "paths", path_names(), &settings->paths);
  ok = ok && choose(options, "tests", test_names(), &settings->tests);
  ok = ok && take_mode(options, settings);
  const uint32_t port_min = settings->mode == Mode::kServe ? 0 : 1;
  ok = ok && options.number("port", port_min, 65535, &settings->port);
  ok = ok && options.number("duration", 1, 600'000, &settings->duration_ms);
  ok = ok && options.number("timeout", 100, 600'000, &settings->timeout_ms);
  ok = ok && take_sizes(options, settings) && take_devices(options, settings);
  settings->listen = options.get("listen", settings->listen);
  settings->html = options.get("html");
  settings->trace = options.get("trace");
  settings->spin = options.has("spin");
  settings->json = options.has("json");
  *status = options.status();
  return ok;
}

}  // namespace tide::fabric
