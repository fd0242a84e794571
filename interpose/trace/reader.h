#pragma once

// Reads a trace: all of its calls in the order of their begins. A file that ends in the middle, or has a damaged piece,
// gives what can be read; what is missing stands in problems().

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "api/travel.h"
#include "base/outcome.h"
#include "interpose/trace/format.h"

namespace tide::trace {

// Makes `path` a trace without frames; what was there must be a trace, or empty. *absolute: where it is.
Outcome begin_file(const std::string& path, std::string* absolute);

struct Parameter {
  std::string name;
  char kind;
};

struct Function {
  std::string name;
  std::vector<Parameter> parameters;
};

struct Process {
  uint32_t pid = 0, parent = 0;
  uint64_t begin_ns = 0, wall_seconds = 0;
  std::string command;
  bool ended = false;
  uint64_t recorded = 0, lost = 0;  // as it said at its end
  uint64_t seen = 0;                // calls that are here
};

struct Call {
  uint32_t process;  // index
  uint32_t thread;
  uint16_t function;
  uint32_t argument_bytes;
  uint64_t arguments;  // where they are in the file
  int32_t result;
  uint64_t begin_ns, duration_ns;
  TravelCounters travel;
};

struct Argument {
  enum class Type { kNone, kUnsigned, kSigned, kReal, kAddress, kText };
  const Parameter* parameter;
  Type type = Type::kNone;
  bool output = false;  // what the call answered
  uint64_t number = 0;
  double real = 0;
  std::string text;  // of every type as people read it
};

class TraceFile {
 public:
  static Outcome read(const std::string& path, TraceFile* file);

  // Leaves only what came between a cuProfilerStart and the next cuProfilerStop of the same process.
  void keep_profiled();

  const std::vector<Process>& processes() const { return processes_; }
  const std::vector<Call>& calls() const { return calls_; }
  const Function& function(const Call& call) const { return functions_[call.function]; }
  std::vector<Argument> arguments(const Call& call) const;
  // What a handle of a kernel is called, as far as the program asked for it by name; else empty.
  std::string kernel_name(const Call& call) const;
  const std::vector<std::string>& problems() const { return problems_; }

 private:
  Outcome read_head(const std::string& path);
  void read_frames();
  size_t whole_frame(size_t at) const;
  void take_frame(size_t at);
  void take_calls(const FrameHead& head, size_t payload);
  uint32_t process_of(const FrameHead& head);
  void name_kernels();
  void look_for_gaps();

  std::string bytes_;
  size_t frames_at_ = 0;
  std::vector<Function> functions_;
  std::vector<Process> processes_;
  std::map<std::pair<uint32_t, uint64_t>, uint32_t> by_name_;  // pid and begin to index
  std::vector<Call> calls_;
  std::map<std::pair<uint32_t, uint64_t>, std::string> kernels_;  // process and handle
  std::vector<std::string> problems_;
};

}  // namespace tide::trace
