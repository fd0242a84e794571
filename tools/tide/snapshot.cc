// `tide snapshot`: a recorded decision, or how the pool is, as a file for `tide simulate --snapshot`.

#include "scheduler/snapshot.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cerrno>

#include "base/clock.h"
#include "base/log.h"
#include "tools/tide/client.h"
#include "tools/tide/commands.h"
#include "tools/tide/json.h"
#include "tools/tide/options.h"
#include "tools/tide/times.h"

namespace tide::cli {
namespace {

constexpr const char* kHelp =
    "usage: tide snapshot [FILE] [--last | --decision N | --at TIME] [--json]\n\n"
    "Writes what the scheduler decided upon and what it decided, for `tide simulate --snapshot FILE`: the last\n"
    "decision (--last), a certain one (--decision N; `tide why JOB --history` has their numbers), or the last one at\n"
    "a time (--at: \"2026-11-23 06:45\", 06:45:10, or 10m for ten minutes ago). Without any of them it is how the\n"
    "pool is now. Without FILE the name is made of the number, in this directory.\n";

// What is asked for; false: it cannot be, and why has been printed.
bool take(Options* options, control::Pool::SnapshotParams::Builder request) {
  uint32_t number = 0;
  const int ways = int(options->has("last")) + int(options->has("decision")) + int(options->has("at"));
  if (ways > 1) return options->usage_error("--last, --decision or --at, not several"), false;
  if (!options->number("decision", 1, UINT32_MAX, &number)) return false;
  request.setNumber(number);
  request.setNow(ways == 0);
  if (!options->has("at")) return true;
  const auto at_ms = parse_moment(options->get("at"), wall_seconds() * 1000);
  if (!at_ms) {
    return options->usage_error("--at must be a time like \"2026-11-23 06:45\", 06:45:10 or 10m (ago), not '" +
                                options->get("at") + "'"),
           false;
  }
  request.setAtMs(*at_ms + 999);  // all of that second
  return true;
}

Outcome fetch(Asker& asker, control::Pool::SnapshotResults::Reader answer, std::string* bytes) {
  auto pieces = answer.getPieces();
  for (;;) {
    kj::Maybe<capnp::Response<control::Pieces::NextResults>> got;
    const Outcome outcome = asker.ask(pieces.nextRequest().send(), &got);
    if (!outcome.ok()) return outcome;
    const auto piece = KJ_ASSERT_NONNULL(got).getPiece();
    if (piece.size() == 0) return {};
    bytes->append(reinterpret_cast<const char*>(piece.begin()), piece.size());
    if (bytes->size() > sched::kSnapshotBytesMax) return Outcome::fail("the snapshot is too large");
  }
}

// In one piece or not at all.
Outcome write_file(const std::string& path, const std::string& bytes) {
  const std::string part = path + ".part";
  FILE* const file = fopen(part.c_str(), "we");
  bool good = file != nullptr && fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
  if (file != nullptr) good = fclose(file) == 0 && good;
  if (good && rename(part.c_str(), path.c_str()) == 0) return {};
  const Outcome failed = Outcome::fail("cannot write " + path + ": " + strerror(errno));
  unlink(part.c_str());
  return failed;
}

}  // namespace

int snapshot(const Words& words) {
  Options options;
  if (!options.parse(words, {{"last", 0, false}, {"decision"}, {"at"}, {"json", 0, false}}, kHelp))
    return options.status();
  if (options.words().size() > 1) return options.usage_error("expects one file");
  Asker asker;
  Outcome outcome = asker.connect(options);
  if (!outcome.ok()) return fail(outcome.message());
  auto request = asker.pool().snapshotRequest();
  if (!take(&options, request)) return options.status();
  kj::Maybe<capnp::Response<control::Pool::SnapshotResults>> answer;
  std::string bytes;
  sched::Snapshot read;
  outcome = asker.ask(request.send(), &answer);
  if (outcome.ok()) outcome = fetch(asker, KJ_ASSERT_NONNULL(answer), &bytes);
  if (outcome.ok()) outcome = sched::from_bytes(bytes, &read);
  const std::string made =
      read.number == 0 ? "pool.snapshot" : format("decision-%lu.snapshot", (unsigned long)read.number);
  const std::string path = options.words().empty() ? made : options.words()[0];
  if (outcome.ok()) outcome = write_file(path, bytes);
  if (!outcome.ok()) return fail(outcome.message());
  if (options.has("json")) {
    Json json;
    json.object().add("file", path).add("decision", read.number).add("at_ms", read.at_ms);
    json.add("bytes", uint64_t(bytes.size())).add("gpus", uint64_t(read.state.gpus.size()));
    json.add("jobs", uint64_t(read.state.jobs.size())).end().print();
    return kOk;
  }
  const std::string what = read.number == 0 ? "the pool as it is" : format("decision %lu", (unsigned long)read.number);
  printf("%s: %s (%s), %zu GPUs, %zu jobs; `tide simulate --snapshot %s` decides it again\n", path.c_str(),
         what.c_str(), moment_text(read.at_ms).c_str(), read.state.gpus.size(), read.state.jobs.size(), path.c_str());
  return kOk;
}

}  // namespace tide::cli
