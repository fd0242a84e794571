#include <errno.h>

#include "api/handshake/handshake.h"
#include "base/log.h"
#include "tools/tide/traces.h"

namespace tide::cli {
namespace {

using trace::Argument;

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

uint64_t first_begin(const trace::TraceFile& file) { return file.calls().empty() ? 0 : file.calls().front().begin_ns; }

std::string microseconds(uint64_t ns) {
  return format("%llu.%03llu", (unsigned long long)(ns / 1000), (unsigned long long)(ns % 1000));
}

// Json writes numbers with six digits; these need more.
std::string event_text(const trace::TraceFile& file, const trace::Call& call, uint64_t origin) {
  Json args;
  args.object();
  for (const Argument& argument : file.arguments(call)) add_argument(args, argument);
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

void print_calls(const trace::TraceFile& file) {
  const uint64_t origin = first_begin(file);
  printf("%14s %10s %15s %-13s %-24s %s\n", "BEGIN us", "TOOK us", "PID/THREAD", "HOW", "BYTES", "CALL");
  for (const trace::Call& call : file.calls()) {
    const uint32_t pid = file.processes()[call.process].pid;
    const std::string kernel = file.kernel_name(call);
    printf("%14s %10s %15s %-13s %-24s %s(%s)%s%s = %s\n", microseconds(call.begin_ns - origin).c_str(),
           microseconds(call.duration_ns).c_str(), format("%u/%u", pid, call.thread).c_str(),
           travel_text(call.travel).c_str(), bytes_text(call.travel).c_str(), file.function(call).name.c_str(),
           arguments_text(file, call).c_str(), kernel.empty() ? "" : " of ", kernel.c_str(),
           result_name(call.result).c_str());
  }
}

void add_calls(Json& json, const trace::TraceFile& file) {
  const uint64_t origin = first_begin(file);
  json.key("calls").list();
  for (const trace::Call& call : file.calls()) {
    json.object()
        .add("name", file.function(call).name)
        .add("pid", file.processes()[call.process].pid)
        .add("thread", call.thread)
        .add("begin_ns", call.begin_ns - origin)
        .add("duration_ns", call.duration_ns)
        .add("result", result_name(call.result));
    if (const std::string kernel = file.kernel_name(call); !kernel.empty()) json.add("kernel", kernel);
    add_travel(json, call.travel);
    json.key("arguments").object();
    for (const Argument& argument : file.arguments(call)) add_argument(json, argument);
    json.end().end();
  }
  json.end();
}

bool write_perfetto(const trace::TraceFile& file, FILE* out) {
  const uint64_t origin = first_begin(file);
  fputs("{\"displayTimeUnit\": \"ns\", \"traceEvents\": [\n", out);
  for (const trace::Process& process : file.processes()) {
    Json name;
    name.object().add("name", process.command).end();
    fprintf(out, "{\"ph\": \"M\", \"name\": \"process_name\", \"pid\": %u, \"args\": %s},\n", process.pid,
            name.str().c_str());
  }
  bool first = true;
  for (const trace::Call& call : file.calls()) {
    fprintf(out, "%s%s", first ? "" : ",\n", event_text(file, call, origin).c_str());
    first = false;
  }
  if (first) fputs("{\"ph\": \"M\", \"name\": \"process_name\", \"pid\": 0, \"args\": {\"name\": \"none\"}}", out);
  fputs("\n]}\n", out);
  errno = 0;
  return fflush(out) == 0 && ferror(out) == 0;
}

}  // namespace tide::cli
