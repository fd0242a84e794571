// The calls of a trace in the order of their begins. Those of a frame are of one thread, nearly in order; frames of
// several threads overlap. So the frames are opened in the order of their first calls, and closed as their last has
// been visited: few are open at a time.

#include <string.h>

#include <algorithm>
#include <memory>
#include <queue>

#include "base/log.h"
#include "interpose/trace/reader.h"

namespace tide::trace {
namespace {

struct Place {
  uint64_t begin_ns, duration_ns;
  uint32_t at;  // in the payload
};

// A frame whose calls are being visited.
struct Run {
  FrameAt frame;
  uint32_t thread = 0;
  uint64_t base_ns = 0;
  std::string payload;
  std::vector<Place> calls;
  size_t next = 0;

  const Place& place() const { return calls[next]; }
  uint64_t bytes() const { return payload.capacity() + calls.capacity() * sizeof(Place); }
};

bool earlier(const Place& a, const Place& b) {
  return a.begin_ns != b.begin_ns ? a.begin_ns < b.begin_ns : a.duration_ns > b.duration_ns;
}

// What comes first is on top.
struct Later {
  bool operator()(const std::unique_ptr<Run>& a, const std::unique_ptr<Run>& b) const {
    if (earlier(a->place(), b->place()) || earlier(b->place(), a->place())) return earlier(b->place(), a->place());
    return a->frame.at > b->frame.at;
  }
};

// False: it is not what it was when it was found.
bool open_run(const FileReader& file, const FrameAt& frame, const std::vector<Function>& functions, Run* run) {
  FrameHead head;
  if (!file.read(frame.at, &head, sizeof head) || head.magic != kFrameMagic || head.bytes > kFrameBytesMax)
    return false;
  run->payload.resize(head.bytes);
  if (!file.read(frame.at + sizeof head, run->payload.data(), head.bytes)) return false;
  if (check_of(run->payload.data(), head.bytes) != head.check) return false;
  run->frame = frame;
  run->thread = head.thread;
  run->base_ns = head.base_ns;
  Cursor from(run->payload.data(), head.bytes);
  Call call = {};
  for (const char* at = from.at(); !from.over() && read_call(from, functions, head.base_ns, &call); at = from.at())
    run->calls.push_back({call.begin_ns, call.duration_ns, uint32_t(at - run->payload.data())});
  std::stable_sort(run->calls.begin(), run->calls.end(), earlier);
  return !run->calls.empty();
}

Call call_of(const Run& run, const std::vector<Function>& functions) {
  const size_t at = run.place().at;
  Cursor from(run.payload.data() + at, run.payload.size() - at);
  Call call = {};
  (void)read_call(from, functions, run.base_ns, &call);  // it could be read before
  call.process = run.frame.process;
  call.thread = run.thread;
  return call;
}

}  // namespace

Outcome TraceFile::for_each_call(const Visitor& visit) {
  kernels_.clear();
  profiled_.assign(processes_.size(), false);
  std::vector<std::unique_ptr<Run>> open;  // a heap
  uint64_t open_bytes = 0;
  for (size_t next = 0; next < frames_.size() || !open.empty();) {
    if (next < frames_.size() && (open.empty() || frames_[next].begin_ns <= open.front()->place().begin_ns)) {
      auto run = std::make_unique<Run>();
      if (!open_run(*file_, frames_[next++], functions_, run.get()))
        return Outcome::fail(path_ + " changed while it was read: has another job begun to write it?");
      open_bytes += run->bytes();
      if (open_bytes > limits_.open_bytes) {
        return Outcome::fail(format("%s has calls of more threads at one time than this tide can order in %llu MiB",
                                    path_.c_str(), static_cast<unsigned long long>(limits_.open_bytes >> 20)));
      }
      open.push_back(std::move(run));
      std::push_heap(open.begin(), open.end(), Later());
      continue;
    }
    std::pop_heap(open.begin(), open.end(), Later());
    Run& run = *open.back();
    visit_call(call_of(run, functions_), visit);
    if (++run.next < run.calls.size()) {
      std::push_heap(open.begin(), open.end(), Later());
    } else {
      open_bytes -= run.bytes();
      open.pop_back();
    }
  }
  return {};
}

void TraceFile::visit_call(const Call& call, const Visitor& visit) {
  const std::string& name = function(call).name;
  const bool start = name == "cuProfilerStart", stop = name == "cuProfilerStop";
  name_kernel(call);
  if (profiled_only_ && (start || stop)) profiled_[call.process] = start;
  if (!profiled_only_ || (profiled_[call.process] && !start)) visit(call);
}

// A program asks for a kernel by its name, and later for the function of a kernel.
void TraceFile::name_kernel(const Call& call) {
  const std::string& name = function(call).name;
  const bool by_name = name == "cuModuleGetFunction" || name == "cuLibraryGetKernel";
  if (call.result != 0 || (!by_name && name != "cuKernelGetFunction")) return;
  const std::vector<Argument> given = arguments(call);
  if (given.size() < (by_name ? 3u : 2u) || given[0].type != Argument::Type::kAddress) return;
  const auto known = kernels_.find({call.process, given[1].number});
  const std::string text = by_name ? given[2].text : known != kernels_.end() ? known->second : "";
  if (!text.empty() && kernels_.size() < limits_.kernels) kernels_[{call.process, given[0].number}] = text;
}

std::string TraceFile::kernel_name(const Call& call) const {
  const Function& which = function(call);
  const auto names_kernel = [](const Parameter& p) {
    return p.name == "f" || p.name == "hfunc" || p.name == "func" || p.name == "kernel";
  };
  if (std::none_of(which.parameters.begin(), which.parameters.end(), names_kernel)) return "";
  for (const Argument& argument : arguments(call)) {
    if (!names_kernel(*argument.parameter)) continue;
    const auto known = kernels_.find({call.process, argument.number});
    return known != kernels_.end() ? known->second : "";
  }
  return "";
}

}  // namespace tide::trace
