#include "tools/rdma_bench/client.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/clock.h"
#include "base/log.h"
#include "tools/rdma_bench/benchmarks.h"
#include "tools/rdma_bench/serve.h"
#include "tools/tide/options.h"

namespace tide::fabric {
namespace {

bool wanted(const std::vector<std::string>& names, const char* name) {
  return names.empty() || std::find(names.begin(), names.end(), name) != names.end();
}

class Client {
 public:
  Client(const Settings& settings, Report* report)
      : settings_(settings), control_(settings.timeout_ms), report_(*report) {}

  Outcome greet() {
    Outcome outcome = control_.connect(settings_.host, settings_.port);
    if (!outcome.ok()) return outcome;
    report_.address = control_.own_address();
    report_.there_address = control_.peer_address();
    std::string payload;
    outcome = control_.send(Word::kHello, pack(Hello{report_.here.name, settings_.duration_ms, settings_.timeout_ms}));
    if (outcome.ok()) outcome = control_.expect(Word::kWelcome, &payload);
    if (outcome.ok() && !unpack(payload, &report_.there)) {
      outcome = Outcome::fail(settings_.host + ": its report about itself is not understood");
    }
    return outcome;
  }

  // The one loop: every benchmark at every size on every line of every path. Fails only when the other side is gone.
  Outcome measure_all() {
    for (const PathKind& kind : kPaths) {
      if (!wanted(settings_.paths, kind.name)) continue;
      std::vector<Line> lines;
      Outcome outcome = lines_of(kind, settings_.devices, report_.here, report_.there, &lines);
      for (const Line& line : lines) {
        if (outcome.ok()) outcome = measure_line(line);
      }
      if (!outcome.ok()) return outcome;
    }
    return report_.paths.empty() ? Outcome::fail(no_path()) : Outcome{};
  }

 private:
  std::string no_path() const {
    return "none of the paths goes over what --device names; RDMA paths go over " + devices_of(report_.here) +
           ", those of TCP over interfaces";
  }

  Outcome measure_line(const Line& line) {
    const PathKind& kind = *line.kind;
    PathReport path;
    path.name = line.name(), path.title = kind.title, path.family = kind.family, path.state = "absent";
    path.named = !settings_.paths.empty();
    path.devices = line.devices_here(), path.devices_there = line.devices_there();
    Outcome fatal;
    if (path_exists(kind, report_.here, report_.there, &path.why)) {
      path.why = obstacle(kind, report_.here, report_.there);
      path.state = "failed";
      if (path.why.empty()) fatal = measure_path(line, &path);
    }
    if (!settings_.json && path.state != "measured" && !path.why.empty()) print_path_head(path);
    report_.paths.push_back(path);
    return fatal;
  }

  Outcome measure_path(const Line& line, PathReport* path) {
    const PathKind& kind = *line.kind;
    std::unique_ptr<Channel> channel = make_channel(kind, control_, line.devices_here());
    Outcome outcome = open(line, *channel);
    path->state = outcome.ok() ? "measured" : "failed";
    if (outcome.ok() && !settings_.json) print_path_head(*path);
    for (const Benchmark& benchmark : kBenchmarks) {
      if (!outcome.ok() || !wanted(settings_.tests, benchmark.name)) continue;
      if (!benchmark.both_sides && (!kind.registers || line.rails.size() > 1)) continue;
      if (line.beside && !benchmark.bandwidth()) continue;
      const std::vector<uint64_t> own = sizes_of(benchmark, settings_.bytes_max);
      for (const uint64_t bytes : settings_.sizes.empty() ? own : settings_.sizes) {
        if (outcome.ok()) outcome = measure_one(line, benchmark, bytes, *channel);
      }
    }
    if (!outcome.ok()) path->state = "failed", path->why = outcome.message();
    if (!outcome.ok() && control_.gone(200)) return Outcome::fail(lost(line));
    if (!outcome.ok()) (void)control_.send(Word::kError, outcome.message());
    path->here = channel->facts();
    outcome = close(&path->there);
    return outcome;
  }

  Outcome open(const Line& line, Channel& channel) {
    std::string mine, theirs;
    Outcome outcome = control_.send(Word::kOpen, pack(Opening{line.kind->name, line.devices_there()}));
    if (outcome.ok()) outcome = control_.expect(Word::kOffer, &theirs);
    if (outcome.ok()) outcome = channel.offer(&mine);
    if (outcome.ok()) outcome = control_.send(Word::kOffer, mine);
    if (outcome.ok()) outcome = channel.join(theirs);
    if (outcome.ok()) outcome = control_.send(Word::kReady);
    if (outcome.ok()) outcome = control_.expect(Word::kReady, &theirs);
    return outcome;
  }

  Outcome measure_one(const Line& line, const Benchmark& benchmark, uint64_t bytes, Channel& channel) {
    Session session{control_, channel, {benchmark.name, bytes, settings_.duration_ms, settings_.spin}};
    Outcome outcome = channel.set_bytes(bytes);
    if (outcome.ok() && benchmark.both_sides) outcome = order(session.run);
    Row row;
    row.path = line.name(), row.test = benchmark.name, row.bytes = bytes;
    doing_ = benchmark.name;
    if (outcome.ok()) outcome = benchmark.measure(session, &row);
    if (!outcome.ok()) return outcome;
    set_limit(report_, &row);
    report_.rows.push_back(row);
    if (!settings_.json) print_row(row);
    return {};
  }

  // Nothing may be sent before the server counts in the new size.
  Outcome order(const Run& run) {
    std::string nothing;
    const Outcome outcome = control_.send(Word::kRun, pack(run));
    return outcome.ok() ? control_.expect(Word::kReady, &nothing) : outcome;
  }

  // Also after a failure, when words of the measurement may still be on their way.
  Outcome close(Facts* there) {
    Outcome outcome = control_.send(Word::kClose);
    Word word = Word::kError;
    std::string payload;
    while (outcome.ok() && word != Word::kClosed) {
      outcome = control_.receive(&word, &payload, 2 * control_.timeout_ms());
    }
    if (outcome.ok() && !unpack(payload, there)) outcome = Outcome::fail("what the path saw is not understood");
    return outcome;
  }

  std::string lost(const Line& line) const {
    return format(
        "%s: its rdma-bench is gone in the middle of %s over %s: it ended, was killed, or the network broke; "
        "look at its terminal, then run both again",
        settings_.host.c_str(), doing_.empty() ? "connecting" : doing_.c_str(), line.name().c_str());
  }

  const Settings& settings_;
  Control control_;
  Report& report_;
  std::string doing_;
};

int fail(const Settings& settings, const std::string& message, int status = cli::kFailed) {
  if (settings.json) {
    cli::Json json;
    json.object().add("failure", message).end().print();
  }
  return fprintf(stderr, "rdma-bench: %s\n", message.c_str()), status;
}

int finish(const Settings& settings, Report* report) {
  judge(report);
  Outcome outcome = add_jobs(settings.trace, report);
  if (settings.json) {
    cli::Json json;
    json.object();
    JsonFields fields(json);
    report->fields(fields);
    json.end().print();
  } else {
    print_end(*report);
  }
  if (outcome.ok() && !settings.html.empty()) outcome = write_html(*report, settings.html);
  if (!outcome.ok()) fprintf(stderr, "rdma-bench: %s\n", outcome.message().c_str());
  if (!report->failure.empty()) fprintf(stderr, "rdma-bench: %s\n", report->failure.c_str());
  bool wrong = !outcome.ok() || !report->failure.empty();
  for (const Finding& finding : report->findings) wrong |= finding.level == "WRONG";
  return wrong ? cli::kFailed : cli::kOk;
}

}  // namespace

int measure(const Settings& settings) {
  if (!settings.trace.empty() && access(settings.trace.c_str(), R_OK) != 0) {
    return fail(settings, settings.trace + ": " + strerror(errno));
  }
  Report report;
  report.duration_ms = settings.duration_ms;
  report.wall_seconds = wall_seconds();
  report.here = this_machine();
  Outcome outcome = check_wishes(settings.devices, report.here);
  if (!outcome.ok()) return fail(settings, outcome.message(), cli::kUsage);
  Client client(settings, &report);
  outcome = client.greet();
  if (!outcome.ok()) return fail(settings, outcome.message());
  if (!settings.json) {
    print_machine(report.here);
    if (!report.one_machine()) print_machine(report.there);
  }
  outcome = client.measure_all();
  report.failure = outcome.message();
  return finish(settings, &report);
}

}  // namespace tide::fabric
