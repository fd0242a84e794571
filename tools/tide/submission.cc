#include "tools/tide/submission.h"

#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "base/clock.h"
#include "base/log.h"
#include "base/outcome.h"
#include "base/pack.h"
#include "base/shares.h"
#include "interpose/trace/file.h"
#include "scheduler/job_class.h"
#include "scheduler/pool_service.h"
#include "tools/tide/deadline.h"
#include "tools/tide/places.h"
#include "tools/tide/times.h"

namespace tide::cli {
namespace {

std::string user_name() {
  const passwd* user = getpwuid(getuid());
  return user != nullptr ? user->pw_name : std::to_string(getuid());
}

std::string before(const std::string& ours, const char* variable) {
  const char* there = getenv(variable);
  return there == nullptr || *there == 0 ? ours : ours + ":" + there;
}

// The scheduler keeps no more of it.
std::string clipped(const std::string& text) { return text.substr(0, sched::kTextBytesMax); }

// It has the library's name, and calls what follows.
void put_tracer_first(const std::string& tracer, const std::string& file,
                      std::vector<std::pair<std::string, std::string>>* environment) {
  const std::string alias = find_alias_directory(tracer.substr(0, tracer.rfind('/')), "alias_trace");
  for (auto& [name, value] : *environment) {
    if (name == "LD_PRELOAD") value = tracer + ":" + value;
    if (name == "LD_LIBRARY_PATH" && !alias.empty()) value = alias + ":" + value;
    if (name == "TRITON_LIBCUDA_PATH" && !alias.empty()) value = alias;
  }
  environment->push_back({"TIDE_TRACE", file});
}

// "3", or a part of one, like "0.25".
bool read_gpus(Options& options, Ask* ask) {
  const std::string text = options.get("gpus");
  const bool whole = text.find('.') == std::string::npos;
  if (whole && options.has("weight")) {
    options.usage_error("--weight is for a part of a GPU, like -g 0.5");
    return false;
  }
  if (!options.number("weight", 1, kWeightMost, &ask->weight)) return false;
  if (whole) return options.number("gpus", 1, 1'000'000, &ask->gpus);
  const auto part = parse_thousandths(text);
  if (part && *part >= sched::kPartLeast && *part < sched::kWholeGpu) {
    ask->part = *part;
    return true;
  }
  options.usage_error("--gpus must be a whole number, or a part of one GPU from 0.01 to 0.999, not '" + text + "'");
  return false;
}

bool read_requirements(Options& options, Ask* ask) {
  ask->gpu_model = options.get("gpu-model");
  if (options.has("gpu-model") && ask->gpu_model.empty()) {
    options.usage_error("--gpu-model needs words of a GPU's name, like H200");
    return false;
  }
  if (options.has("together") && !sched::parse_together(options.get("together"), &ask->together)) {
    options.usage_error("--together is server or switch, not '" + options.get("together") + "'");
    return false;
  }
  const std::string labels = options.get("label");
  for (size_t at = 0; options.has("label") && at <= labels.size();) {
    const size_t end = std::min(labels.find(',', at), labels.size());
    ask->labels.push_back(labels.substr(at, end - at));
    at = end + 1;
    if (sched::is_label(ask->labels.back())) continue;
    options.usage_error("'" + ask->labels.back() + "' is no label; it is KEY=VALUE, like rack=a");
    return false;
  }
  return true;
}

bool read_rules(Options& options, Ask* ask) {
  const std::string priority = options.get("priority"), job_class = options.get("class");
  if (options.has("priority")) {
    const auto [end, error] = std::from_chars(priority.data(), priority.data() + priority.size(), ask->priority);
    if (error != std::errc() || end != priority.data() + priority.size() || std::abs(ask->priority) > 1000) {
      options.usage_error("--priority is a whole number from -1000 to 1000, not '" + priority + "'");
      return false;
    }
  }
  sched::JobClass named = sched::JobClass::kBatch;
  if (options.has("class") && !sched::parse_job_class(job_class, &named)) {
    options.usage_error("--class is batch, interactive or inference, not '" + job_class + "'");
    return false;
  }
  if (options.has("class")) ask->job_class = control::JobClass(named);
  ask->powers_of_two = options.has("powers-of-two");
  if (ask->powers_of_two && options.get("gpus").find('.') != std::string::npos) {
    options.usage_error("--powers-of-two is for whole GPUs");
    return false;
  }
  if (options.get("idle-return") == "off") {
    ask->idle_ms = UINT64_MAX;
  } else if (!options.duration("idle-return", &ask->idle_ms)) {
    return false;
  }
  return options.duration("min-runtime", &ask->min_runtime_ms);
}

bool read_deadline(Options& options, Ask* ask) {
  if (!options.duration("estimate", &ask->estimate_ms)) return false;
  if (!options.has("deadline")) return true;
  const uint64_t now_ms = wall_seconds() * 1000;
  const auto deadline_ms = parse_deadline(options.get("deadline"), now_ms);
  std::string wrong;
  if (!deadline_ms) {
    wrong =
        "--deadline is a time from now like 2h, or one like 2026-11-24T18:00, 2026-11-24T18:00Z or "
        "2026-11-24T18:00+01:00, not '" +
        options.get("deadline") + "'";
  } else if (*deadline_ms <= now_ms) {
    wrong = "--deadline " + moment_text(*deadline_ms) + " has passed: it is " + moment_text(now_ms);
  } else if (ask->estimate_ms == 0) {
    wrong = "--deadline needs --estimate: how long the job will run on all its GPUs, as you think";
  }
  if (!wrong.empty()) options.usage_error(wrong);
  ask->deadline_ms = deadline_ms.value_or(0);
  return wrong.empty();
}

// What monitoring sees; preloaded, too, where it was built.
std::string nvml_of(const std::string& directory) {
  const std::string path = directory + "/libtidenvml.so";
  return access(path.c_str(), R_OK) == 0 ? ":" + path : "";
}

}  // namespace

const std::vector<OptionSpec> kAskOptions = {{"gpus", 'g'},
                                             {"min"},
                                             {"gpu-memory"},
                                             {"name"},
                                             {"queue"},
                                             {"trace"},
                                             {"compress"},
                                             {"idle-return"},
                                             {"no-turns", 0, false},
                                             {"protect"},
                                             {"gpu-model"},
                                             {"label", 0, true, true},
                                             {"together"},
                                             {"priority"},
                                             {"class"},
                                             {"min-runtime"},
                                             {"powers-of-two", 0, false},
                                             {"weight"},
                                             {"reservation"},
                                             {"estimate"},
                                             {"deadline"}};
const char* const kAskHelp =
    "  -g, --gpus N       virtual GPUs that the program sees (default 1); or a part of one that others may share, "
    "like\n"
    "                     0.5: so much of its memory, too, unless --gpu-memory says how much\n"
    "  --weight N         where others have parts of the same GPU: its part counts N times (default 1)\n"
    "  --min M            physical GPUs that it has at any time, at least (default 1); with --min, N may be more than\n"
    "                     the pool has: virtual GPUs then share physical ones\n"
    "  --gpu-memory SIZE  memory of a virtual GPU (default: that of the GPU where it starts)\n"
    "  --name NAME        to find the job by\n"
    "  --queue Q          the queue that it is for (`tide queues`; default: the one called default, or the only one)\n"
    "  --trace FILE       writes every driver call into FILE, for `tide trace FILE`\n"
    "  --compress MODE    copies to and from other machines: auto (packed where the network is slow, the default), on, "
    "off\n"
    "  --idle-return TIME gives its GPUs back when it has done nothing for so long (10m, 2h, off), until its next "
    "call\n"
    "                     (default: off; of the interactive class 10m, or as pool.toml says)\n"
    "  --no-turns         keeps its GPUs until it ends, also in a pool where jobs take turns\n"
    "  --protect TIME     a checkpoint so often (30s), from which it goes on elsewhere where its worker or server is "
    "lost\n"
    "  --priority N       within its queue: a higher one starts first, grows first, and takes GPUs from lower ones\n"
    "                     (-1000 to 1000, default 0)\n"
    "  --class CLASS      batch, interactive or inference (default: as its queue says, else batch)\n"
    "  --min-runtime TIME so much useful running before it is disturbed for others' sake (default: as pool.toml says)\n"
    "  --powers-of-two    it has 1, 2, 4, 8, ... physical GPUs, or as many as virtual ones\n"
    "  --gpu-model MODEL  only on GPUs with these words in their name, like H200 (`tide gpus`)\n"
    "  --label KEY=VALUE  only on servers with this label; may be given several times\n"
    "  --together WHERE   all its physical GPUs on one server, or behind one switch: server, switch (without it: on\n"
    "                     one server where that can be)\n"
    "  --reservation NAME on the GPUs of a reservation of the pool (`tide status`), from its beginning on\n"
    "  --estimate TIME    how long it will run on all its GPUs, as you think (2h)\n"
    "  --deadline WHEN    it shall be done by then: 2h (from now), 2026-11-24T18:00, ...T18:00Z, ...T18:00+01:00. The\n"
    "                     job is taken only if that can be promised; it is kept if the estimate is not exceeded\n"
    "  --pool ADDRESS     the pool's scheduler (default $TIDE_POOL, then this machine's own)\n";

bool read_ask(Options& options, Ask* ask) {
  ask->min_given = options.has("min");
  ask->name = options.get("name");
  ask->queue = options.get("queue");
  ask->reservation = options.get("reservation");
  if (options.has("reservation") && ask->reservation.empty()) {
    options.usage_error("--reservation needs the name of one; `tide status` lists them");
    return false;
  }
  ask->trace = options.get("trace");
  ask->no_turns = options.has("no-turns");
  if (options.has("trace") && ask->trace.empty()) {
    options.usage_error("--trace needs a FILE");
    return false;
  }
  if (!read_requirements(options, ask)) return false;
  ask->compress = options.get("compress");
  PackMode mode;
  if (options.has("compress") && !parse_pack_mode(ask->compress.c_str(), &mode)) {
    options.usage_error("--compress is off, auto or on");
    return false;
  }
  if (options.has("min") && options.get("gpus").find('.') != std::string::npos) {
    options.usage_error("--min is for whole GPUs");
    return false;
  }
  // What is possible the pool knows; here only what is a number at all.
  return read_gpus(options, ask) && options.number("min", 1, 1'000'000, &ask->min_gpus) &&
         options.size("gpu-memory", &ask->memory_bytes) && read_rules(options, ask) &&
         options.duration("protect", &ask->protect_ms) && read_deadline(options, ask);
}

void fill_spec(control::JobSpec::Builder spec, const Ask& ask, const std::string& command, uint32_t pid) {
  spec.setGpus(ask.gpus);
  spec.setMinGpus(ask.min_gpus);
  spec.setPart(ask.part);
  spec.setWeight(ask.weight);
  spec.setMinGiven(ask.min_given);
  spec.setMemoryBytes(ask.memory_bytes);
  spec.setName(clipped(ask.name));
  spec.setQueue(clipped(ask.queue));
  spec.setUser(user_name());
  spec.setCommand(clipped(command));
  spec.setPid(pid);
  spec.setIdleMs(ask.idle_ms);
  spec.setNoTurns(ask.no_turns);
  spec.setPriority(ask.priority);
  spec.setJobClass(ask.job_class);
  spec.setMinRuntimeMs(ask.min_runtime_ms);
  spec.setPowersOfTwo(ask.powers_of_two);
  spec.setProtectMs(ask.protect_ms);
  spec.setEstimateMs(ask.estimate_ms);
  spec.setDeadlineMs(ask.deadline_ms);
  spec.setGpuModel(clipped(ask.gpu_model));
  auto labels = spec.initLabels(uint32_t(ask.labels.size()));
  for (uint32_t i = 0; i < labels.size(); ++i) labels.set(i, ask.labels[i]);
  spec.setTogether(control::Together(ask.together));
  spec.setReservation(clipped(ask.reservation));
}

Outcome begin_trace(Ask* ask) {
  if (ask->trace.empty()) return {};
  if (find_trace_library(find_library_directory()).empty())
    return Outcome::fail("libtidetrace.so is not beside libtidecuda.so; build it, or use a whole bundle");
  const Outcome begun = trace::begin_file(ask->trace, &ask->trace);
  return begun.ok() ? Outcome() : Outcome::fail("no trace: " + begun.message());
}

Outcome job_environment(const Granted& job, const Ask& ask,
                        std::vector<std::pair<std::string, std::string>>* environment) {
  std::string looked_in;
  const std::string library = find_library_directory(&looked_in);
  if (library.empty()) {
    return Outcome::fail("libtidecuda.so is not there (looked in " + looked_in +
                         "); build it, or set TIDE_LIB to its directory");
  }
  const std::string preload = library + "/libtidecuda.so" + nvml_of(library);
  std::string token;
  for (const char c : job.token) token += format("%02x", unsigned(static_cast<unsigned char>(c)));
  *environment = {{"TIDE_DOOR", job.door},
                  {"TIDE_JOB", job.id},
                  {"TIDE_TOKEN", token},
                  {"TIDE_VGPUS", std::to_string(job.gpus)},
                  {"LD_PRELOAD", before(preload, "LD_PRELOAD")}};
  const std::string alias = find_alias_directory(library);
  if (!alias.empty()) {
    environment->push_back({"TRITON_LIBCUDA_PATH", alias});
    environment->push_back({"LD_LIBRARY_PATH", before(alias, "LD_LIBRARY_PATH")});
  }
  if (!ask.compress.empty()) environment->push_back({"TIDE_COMPRESS", ask.compress});
  if (!ask.trace.empty()) put_tracer_first(find_trace_library(library), ask.trace, environment);
  return {};
}

}  // namespace tide::cli
