#pragma once

// Reads a trace of any length in little memory: what is kept is where the frames are, and the calls are given one after
// the other in the order of their begins. A file that ends in the middle, or has a damaged piece, gives what can be
// read; what is missing stands in problems().

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/outcome.h"
#include "interpose/trace/call.h"
#include "interpose/trace/file.h"
#include "interpose/trace/format.h"

namespace tide::trace {

struct Process {
  uint32_t pid = 0, parent = 0;
  uint64_t begin_ns = 0, wall_seconds = 0;
  std::string command;
  bool ended = false;
  uint64_t recorded = 0, lost = 0;  // as it said at its end
  uint64_t seen = 0;                // calls that are here
};

// Where a frame of calls is.
struct FrameAt {
  uint64_t at = 0, begin_ns = 0;  // of its first call
  uint32_t process = 0;
};

// What the reader takes at most, whatever is in the file; beyond that it fails.
struct ReadLimits {
  uint64_t frames = 8u << 20;  // of 24 bytes each here; as they are usually written, a file of 500 GiB
  uint64_t processes = 1u << 16;
  uint64_t kernels = 1u << 18;       // names; more are left out
  uint64_t open_bytes = 512u << 20;  // of frames whose times overlap: one for each thread that works at the time
};

class TraceFile {
 public:
  // Looks at all of the file once.
  static Outcome read(const std::string& path, TraceFile* file, const ReadLimits& limits = {});

  // Leaves only what came between a cuProfilerStart and the next cuProfilerStop of the same process.
  void keep_profiled() { profiled_only_ = true; }

  using Visitor = std::function<void(const Call&)>;
  // In the order of their begins; of calls that began at once, the outer one first.
  Outcome for_each_call(const Visitor& visit);

  const std::vector<Process>& processes() const { return processes_; }
  const std::vector<std::string>& problems() const { return problems_; }
  // Of the call that is being visited:
  const Function& function(const Call& call) const { return functions_[call.function]; }
  std::vector<Argument> arguments(const Call& call) const { return arguments_of(call, function(call)); }
  // What a handle of a kernel is called, as far as the program has asked for it by name; else empty.
  std::string kernel_name(const Call& call) const;

 private:
  Outcome read_head();
  Outcome read_frames();
  size_t whole_frame(uint64_t at);
  uint64_t find_frame(uint64_t at);
  Outcome take_frame(uint64_t at);
  Outcome take_calls(uint64_t at, const FrameHead& head, const char* payload, uint32_t process);
  Outcome process_of(const FrameHead& head, uint32_t* index);
  void visit_call(const Call& call, const Visitor& visit);
  void name_kernel(const Call& call);
  void look_for_gaps();
  void add_problem(std::string text);

  std::string path_;
  ReadLimits limits_;
  std::unique_ptr<FileReader> file_;
  uint64_t frames_at_ = 0;
  std::vector<FrameAt> frames_;  // of calls
  std::vector<Function> functions_;
  std::vector<Process> processes_;
  std::map<std::pair<uint32_t, uint64_t>, uint32_t> by_name_;  // pid and begin to index
  std::vector<std::string> problems_;
  uint64_t problems_left_out_ = 0;
  // Of the visit:
  bool profiled_only_ = false;
  std::vector<bool> profiled_;                                    // by process: between the marks now
  std::map<std::pair<uint32_t, uint64_t>, std::string> kernels_;  // process and handle
};

}  // namespace tide::trace
