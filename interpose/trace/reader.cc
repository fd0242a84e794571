#include "interpose/trace/reader.h"

#include <string.h>

#include <algorithm>

#include "base/log.h"

namespace tide::trace {
namespace {

constexpr size_t kProblemsMax = 100;
constexpr size_t kSearchBytes = FileReader::kViewMax / 2;
static_assert(sizeof(FrameHead) + kFrameBytesMax <= FileReader::kViewMax);

size_t padded(size_t bytes) { return (bytes + 7) / 8 * 8; }

}  // namespace

Outcome TraceFile::read(const std::string& path, TraceFile* file, const ReadLimits& limits) {
  file->path_ = path;
  file->limits_ = limits;
  file->file_ = std::make_unique<FileReader>();
  Outcome outcome = file->file_->open(path);
  if (outcome.ok()) outcome = file->read_head();
  if (outcome.ok()) outcome = file->read_frames();
  if (!outcome.ok()) return outcome;
  std::stable_sort(file->frames_.begin(), file->frames_.end(),
                   [](const FrameAt& a, const FrameAt& b) { return a.begin_ns < b.begin_ns; });
  file->look_for_gaps();
  return {};
}

Outcome TraceFile::read_head() {
  FileHead head = {};
  file_->read(0, &head, size_t(std::min<uint64_t>(sizeof head, file_->size())));
  if (memcmp(head.magic, kMagic, sizeof kMagic) != 0)
    return Outcome::fail(path_ + " is not a trace of `tide run --trace`");
  if (file_->size() < sizeof head) return Outcome::fail(path_ + " is cut: nothing of it can be read");
  if (head.version != kVersion) {
    return Outcome::fail(
        format("%s is a trace of format %u, this tide reads format %u", path_.c_str(), head.version, kVersion));
  }
  if (head.table_bytes > kTableBytesMax) return Outcome::fail(path_ + " is damaged: its table cannot be that long");
  std::string table(head.table_bytes, 0);
  if (!file_->read(sizeof head, table.data(), table.size()))
    return Outcome::fail(path_ + " is cut: nothing of it can be read");
  if (!parse_table(table, &functions_)) return Outcome::fail(path_ + " is damaged: its table cannot be read");
  frames_at_ = sizeof head + head.table_bytes;
  return {};
}

// The bytes of the frame at `at`, 0 where none is whole.
size_t TraceFile::whole_frame(uint64_t at) {
  const char* from = file_->view(at, sizeof(FrameHead));
  if (from == nullptr) return 0;
  FrameHead head;
  memcpy(&head, from, sizeof head);
  if (head.magic != kFrameMagic || head.bytes > kFrameBytesMax) return 0;
  const size_t all = sizeof head + padded(head.bytes);
  from = file_->view(at, all);
  return from != nullptr && check_of(from + sizeof head, head.bytes) == head.check ? all : 0;
}

// The next whole frame from `at` on, or the file's end: after a piece that was cut they begin anywhere.
uint64_t TraceFile::find_frame(uint64_t at) {
  while (file_->size() - at >= sizeof kFrameMagic) {
    const auto bytes = size_t(std::min<uint64_t>(kSearchBytes, file_->size() - at));
    const char* from = file_->view(at, bytes);
    if (from == nullptr) break;
    const void* found = memmem(from, bytes, &kFrameMagic, sizeof kFrameMagic);
    if (found == nullptr) {
      at = file_->next_data(at + bytes - (sizeof kFrameMagic - 1));  // the last bytes may begin it
      continue;
    }
    at += uint64_t(static_cast<const char*>(found) - from);
    if (whole_frame(at) != 0) return at;
    ++at;
  }
  return file_->size();
}

Outcome TraceFile::read_frames() {
  uint64_t damaged = 0, at = frames_at_;
  while (at < file_->size()) {
    if (const size_t bytes = whole_frame(at); bytes != 0) {
      if (Outcome o = take_frame(at); !o.ok()) return o;
      at += bytes;
      continue;
    }
    const uint64_t next = find_frame(at + 1);
    if (next == file_->size()) {
      add_problem(format("the file ends in the middle: its last %llu bytes are not whole",
                         static_cast<unsigned long long>(next - at)));
      break;
    }
    damaged += next - at;
    at = next;
  }
  if (damaged != 0)
    add_problem(format("%llu bytes in the middle are damaged and left out", static_cast<unsigned long long>(damaged)));
  return {};
}

Outcome TraceFile::process_of(const FrameHead& head, uint32_t* index) {
  const auto [at, made] = by_name_.try_emplace({head.pid, head.process_ns}, uint32_t(processes_.size()));
  *index = at->second;
  if (!made) return {};
  if (processes_.size() == limits_.processes) {
    return Outcome::fail(format("%s has more than %llu processes, which this tide does not read: is it damaged?",
                                path_.c_str(), static_cast<unsigned long long>(limits_.processes)));
  }
  processes_.emplace_back();
  processes_.back().pid = head.pid;
  processes_.back().begin_ns = head.process_ns;
  return {};
}

// Requires: it is whole.
Outcome TraceFile::take_frame(uint64_t at) {
  FrameHead head;
  memcpy(&head, file_->view(at, sizeof head), sizeof head);
  const char* from = file_->view(at, sizeof head + head.bytes) + sizeof head;
  const bool known = head.kind == FrameKind::kCalls ||
                     (head.kind == FrameKind::kProcess && head.bytes >= sizeof(ProcessPayload)) ||
                     (head.kind == FrameKind::kEnd && head.bytes >= sizeof(EndPayload));
  if (!known) return {};
  uint32_t index = 0;
  if (Outcome o = process_of(head, &index); !o.ok()) return o;
  if (head.kind == FrameKind::kCalls) return take_calls(at, head, from, index);
  Process& process = processes_[index];
  if (head.kind == FrameKind::kProcess) {
    ProcessPayload about;
    memcpy(&about, from, sizeof about);
    process.parent = about.parent;
    process.wall_seconds = about.wall_seconds;
    std::string command(from + sizeof about, std::min<size_t>(head.bytes - sizeof about, kCommandBytesMax));
    while (!command.empty() && command.back() == 0) command.pop_back();
    std::replace(command.begin(), command.end(), '\0', ' ');
    process.command = printable(command.data(), command.size());
  } else {
    EndPayload end;
    memcpy(&end, from, sizeof end);
    process.ended = true;
    process.recorded = end.recorded;
    process.lost = end.lost;
  }
  return {};
}

// Counts them, and remembers where they are.
Outcome TraceFile::take_calls(uint64_t at, const FrameHead& head, const char* payload, uint32_t process) {
  FrameAt frame = {.at = at, .begin_ns = UINT64_MAX, .process = process};
  Cursor from(payload, head.bytes);
  uint64_t calls = 0;
  Call call = {};
  while (!from.over() && read_call(from, functions_, head.base_ns, &call)) {
    frame.begin_ns = std::min(frame.begin_ns, call.begin_ns);
    ++calls;
  }
  if (!from.over()) add_problem(format("calls of process %u cannot be read", head.pid));
  processes_[process].seen += calls;
  if (calls == 0) return {};
  if (frames_.size() == limits_.frames) {
    return Outcome::fail(format("%s has more than %llu pieces, which this tide does not read: trace a shorter run",
                                path_.c_str(), static_cast<unsigned long long>(limits_.frames)));
  }
  frames_.push_back(frame);
  return {};
}

void TraceFile::look_for_gaps() {
  for (const Process& p : processes_) {
    if (!p.ended) {
      add_problem(
          format("process %u did not end its trace: it still runs, was killed, or had no room left; up to a second of "
                 "its last calls is missing",
                 p.pid));
    } else if (p.recorded > p.seen || p.lost != 0) {
      const uint64_t missing = p.lost + (p.recorded > p.seen ? p.recorded - p.seen : 0);
      add_problem(format("of process %u, %llu calls are missing", p.pid, static_cast<unsigned long long>(missing)));
    }
  }
}

void TraceFile::add_problem(std::string text) {
  if (problems_.size() < kProblemsMax) return problems_.push_back(std::move(text));
  if (problems_.size() == kProblemsMax) problems_.emplace_back();
  problems_.back() = format("and %llu more of these", static_cast<unsigned long long>(++problems_left_out_));
}

}  // namespace tide::trace
