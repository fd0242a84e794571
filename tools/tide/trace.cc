#include "interpose/trace/reader.h"
#include "tools/tide/commands.h"
#include "tools/tide/options.h"
#include "tools/tide/traces.h"

namespace tide::cli {
namespace {

Outcome print_json(trace::TraceFile& file, bool calls) {
  Json json;
  json.object();
  Outcome outcome = add_summary(json, file);
  if (outcome.ok() && calls) outcome = add_calls(json, file);
  if (outcome.ok()) json.end().print();
  return outcome;
}

Outcome show(const Options& options, const std::string& path, trace::TraceFile& file) {
  if (options.has("perfetto")) return write_perfetto(file, options.get("perfetto"));
  if (options.has("json")) return print_json(file, options.has("calls"));
  return options.has("calls") ? print_calls(file) : print_summary(path, file);
}

}  // namespace

int trace_command(const Words& words) {
  constexpr const char* kHelp =
      "usage: tide trace FILE [--calls] [--profiled] [--json] [--perfetto OUT.json]\n\n"
      "Reads what `tide run --trace FILE` or `tide env --trace FILE` wrote, and prints for each function of the "
      "driver\n"
      "its calls, their time, round trips and bytes. Works while the job runs, too.\n"
      "  --calls            every call in the order of time: how it travelled, arguments, result\n"
      "  --profiled         only what came between cuProfilerStart and cuProfilerStop (torch.cuda.profiler.start(), "
      "stop())\n"
      "  --json             the same for programs\n"
      "  --perfetto OUT     writes the calls as trace events: open the file in https://ui.perfetto.dev\n"
      "How a call travelled: \"local\" was answered in the program; \"sent\" wrote commands for the GPU server and did "
      "not\n"
      "wait; \"N round trips\" waited. A trace with gaps is shown, and the gaps are told on standard error.\n";
  Options options;
  if (!options.parse(words, {{"json", 0, false}, {"calls", 0, false}, {"profiled", 0, false}, {"perfetto"}}, kHelp))
    return options.status();
  if (!options.expect_words(1, "one FILE")) return options.status();
  const std::string path = options.words()[0];
  trace::TraceFile file;
  if (const Outcome read = trace::TraceFile::read(path, &file); !read.ok()) return fail(read.message());
  for (const std::string& problem : file.problems()) fprintf(stderr, "tide: %s: %s\n", path.c_str(), problem.c_str());
  if (options.has("profiled")) file.keep_profiled();
  const Outcome shown = show(options, path, file);
  return shown.ok() ? kOk : fail(shown.message());
}

}  // namespace tide::cli
