#include <errno.h>
#include <string.h>

#include <algorithm>
#include <map>
#include <optional>

#include "api/handshake/handshake.h"
#include "base/log.h"
#include "tools/tide/traces.h"

namespace tide::cli {
namespace {

using trace::Argument;

constexpr size_t kPieceBytes = 1u << 16;  // of JSON that are printed at once
constexpr size_t kNameMax = 80;

void add_argument(Json& json, const Argument& argument) {
  json.key(argument.parameter->name.c_str());
  switch (argument.type) {
    case Argument::Type::kUnsigned:
      json.number(argument.number);
      return;
    case Argument::Type::kSigned:
      json.number(int64_t(argument.number));
      return;
    default:
      json.text(argument.text);
  }
}

void add_travel(Json& json, const TravelCounters& travel) {
  json.add("how", travel_text(travel))
      .add("commands", travel.commands)
      .add("round_trips", travel.round_trips)
      .add("wait_ns", travel.wait_ns)
      .add("sent_bytes", travel.sent_bytes)
      .add("received_bytes", travel.received_bytes);
}

std::string arguments_text(const trace::TraceFile& file, const trace::Call& call) {
  std::string text;
  for (const Argument& argument : file.arguments(call)) {
    text += (text.empty() ? "" : ", ") + std::string(argument.output ? "*" : "") + argument.parameter->name + "=";
    text += argument.type == Argument::Type::kText ? '"' + argument.text + '"' : argument.text;
  }
  return text;
}

std::string bytes_text(const TravelCounters& travel) {
  std::string text;
  if (travel.sent_bytes != 0) text += format("%llu out", (unsigned long long)travel.sent_bytes);
  if (travel.received_bytes != 0)
    text += format("%s%llu in", text.empty() ? "" : ", ", (unsigned long long)travel.received_bytes);
  return text.empty() ? "-" : text;
}

std::string microseconds(uint64_t ns) {
  return format("%llu.%03llu", (unsigned long long)(ns / 1000), (unsigned long long)(ns % 1000));
}

// Json writes numbers with six digits; these need more.
std::string event_text(const trace::TraceFile& file, const trace::Call& call, uint64_t origin) {
  Json args;
  args.object();
  for (Argument& argument : file.arguments(call)) {
    if (argument.number > uint64_t(INT64_MAX) && argument.type == Argument::Type::kUnsigned)
      argument.type = Argument::Type::kText;  // Perfetto would show it as negative
    add_argument(args, argument);
  }
  if (const std::string kernel = file.kernel_name(call); !kernel.empty()) args.add("kernel name", kernel);
  add_travel(args, call.travel);
  args.add("result", result_name(call.result)).end();
  Json name;
  name.text(file.function(call).name);
  return "{\"ph\": \"X\", \"cat\": \"driver\", \"name\": " + name.str() +
         ", \"pid\": " + std::to_string(file.processes()[call.process].pid) +
         ", \"tid\": " + std::to_string(call.thread) + ", \"ts\": " + microseconds(call.begin_ns - origin) +
         ", \"dur\": " + microseconds(call.duration_ns) + ", \"args\": " + args.str() + "}";
}

// Perfetto shows what stands behind the last slash of a process's name, so each word goes in by the last part of its
// path. The processes that one became by exec have one number, and one track.
std::string short_command(const std::string& command) {
  std::string text;
  for (size_t at = 0; at < command.size() && text.size() < kNameMax;) {
    const size_t end = std::min(command.find(' ', at), command.size());
    std::string word = command.substr(at, end - at);
    while (!word.empty() && word.back() == '/') word.pop_back();
    word.erase(0, word.rfind('/') + 1);
    if (!word.empty()) text += (text.empty() ? "" : " ") + word;
    at = end + 1;
  }
  return text.size() <= kNameMax ? text : text.substr(0, kNameMax) + "...";
}

void add_process_names(const trace::TraceFile& file, FILE* out) {
  std::map<uint32_t, std::string> by_pid;
  for (const trace::Process& process : file.processes()) {
    std::string& name = by_pid[process.pid];
    name += (name.empty() ? "" : ", then ") + short_command(process.command);
  }
  if (by_pid.empty()) by_pid[0] = "none";
  const char* between = "";
  for (const auto& [pid, text] : by_pid) {
    Json name;
    name.object().add("name", text).end();
    fprintf(out, "%s{\"ph\": \"M\", \"name\": \"process_name\", \"pid\": %u, \"args\": %s}", between, pid,
            name.str().c_str());
    between = ",\n";
  }
}

}  // namespace

std::string result_name(int32_t result) {
  const char* name = handshake::error_name(CUresult(result));
  return name != nullptr ? name : std::to_string(result);
}

std::string travel_text(const TravelCounters& travel) {
  if (travel.round_trips == 1) return "1 round trip";
  if (travel.round_trips != 0) return std::to_string(travel.round_trips) + " round trips";
  return travel.commands != 0 ? "sent" : "local";
}

Outcome print_calls(trace::TraceFile& file) {
  std::optional<uint64_t> origin;
  printf("%14s %10s %15s %-13s %-24s %s\n", "BEGIN us", "TOOK us", "PID/THREAD", "HOW", "BYTES", "CALL");
  return file.for_each_call([&](const trace::Call& call) {
    if (!origin) origin = call.begin_ns;
    const uint32_t pid = file.processes()[call.process].pid;
    const std::string kernel = file.kernel_name(call);
    printf("%14s %10s %15s %-13s %-24s %s(%s)%s%s = %s\n", microseconds(call.begin_ns - *origin).c_str(),
           microseconds(call.duration_ns).c_str(), format("%u/%u", pid, call.thread).c_str(),
           travel_text(call.travel).c_str(), bytes_text(call.travel).c_str(), file.function(call).name.c_str(),
           arguments_text(file, call).c_str(), kernel.empty() ? "" : " of ", kernel.c_str(),
           result_name(call.result).c_str());
  });
}

Outcome add_calls(Json& json, trace::TraceFile& file) {
  std::optional<uint64_t> origin;
  json.key("calls").list();
  const Outcome visited = file.for_each_call([&](const trace::Call& call) {
    if (!origin) origin = call.begin_ns;
    json.object()
        .add("name", file.function(call).name)
        .add("pid", file.processes()[call.process].pid)
        .add("thread", call.thread)
        .add("begin_ns", call.begin_ns - *origin)
        .add("duration_ns", call.duration_ns)
        .add("result", result_name(call.result));
    if (const std::string kernel = file.kernel_name(call); !kernel.empty()) json.add("kernel", kernel);
    add_travel(json, call.travel);
    json.key("arguments").object();
    for (const Argument& argument : file.arguments(call)) add_argument(json, argument);
    json.end().end();
    if (json.str().size() > kPieceBytes) json.print_so_far();
  });
  json.end();
  return visited;
}

Outcome write_perfetto(trace::TraceFile& file, const std::string& path) {
  FILE* out = fopen(path.c_str(), "we");
  if (out == nullptr) return Outcome::fail(path + ": " + strerror(errno));
  fputs("{\"displayTimeUnit\": \"ns\", \"traceEvents\": [\n", out);
  add_process_names(file, out);
  std::optional<uint64_t> origin;
  const Outcome visited = file.for_each_call([&](const trace::Call& call) {
    if (!origin) origin = call.begin_ns;
    fprintf(out, ",\n%s", event_text(file, call, *origin).c_str());
  });
  fputs("\n]}\n", out);
  errno = 0;
  const bool written = fflush(out) == 0 && ferror(out) == 0;
  const int error = errno;
  if (fclose(out) != 0 || !written) return Outcome::fail(path + ": " + (error != 0 ? strerror(error) : "cannot write"));
  return visited;
}

}  // namespace tide::cli
