#include "interpose/trace/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/log.h"
#include "interpose/trace/table.h"

namespace tide::trace {
namespace {

constexpr size_t kParametersMax = 64;

uint64_t hash_of(const std::string& text) {
  uint64_t value = 0xcbf29ce484222325u;
  for (const char c : text) value = (value ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return value;
}

class Descriptor {
 public:
  Descriptor(const char* path, int flags) : fd(open(path, flags | O_CLOEXEC | O_NOCTTY, 0666)) {}
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  const int fd;
};

Outcome cannot(const std::string& path) { return Outcome::fail(path + ": " + strerror(errno)); }

// Only what lies within its piece of the file is read; after a step outside, everything is zero and ok() false.
class Cursor {
 public:
  Cursor(const char* begin, size_t bytes) : at_(begin), end_(begin + bytes) {}
  bool ok() const { return ok_; }
  bool over() const { return at_ == end_; }
  const char* at() const { return at_; }
  uint64_t varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const uint8_t part = byte();
      value |= uint64_t(part & 0x7f) << shift;
      if (part < 0x80) return value;
    }
    ok_ = false;
    return 0;
  }
  uint8_t byte() {
    const char* from = raw(1);
    return from == nullptr ? 0 : uint8_t(*from);
  }
  const char* raw(size_t bytes) {
    if (!ok_ || size_t(end_ - at_) < bytes) {
      ok_ = false;
      return nullptr;
    }
    at_ += bytes;
    return at_ - bytes;
  }

 private:
  const char* at_;
  const char* end_;
  bool ok_ = true;
};

bool is_output(char kind) { return kind != 0 && strchr("zpmng", kind) != nullptr; }

float read_float(Cursor& from) {
  float value = 0;
  if (const char* raw = from.raw(sizeof value); raw != nullptr) memcpy(&value, raw, sizeof value);
  return value;
}

std::string printable(const char* text, size_t bytes) {
  std::string out;
  for (size_t i = 0; i < bytes; ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    out += c >= 0x20 && c < 0x7f ? std::string(1, char(c)) : format("\\x%02x", c);
  }
  return out;
}

void read_text(Cursor& from, Argument* argument) {
  const uint64_t length = from.varint();
  if (length == 0 || length > kTextMax + 1) {
    argument->text = "-";
    return;
  }
  const char* raw = from.raw(length - 1);
  argument->type = Argument::Type::kText;
  if (raw != nullptr) argument->text = printable(raw, length - 1);
}

void read_value(Cursor& from, char kind, Argument* argument) {
  using Type = Argument::Type;
  switch (kind) {
    case 'f':
    case 'g':
      argument->type = Type::kReal;
      argument->real = double(read_float(from));
      argument->text = format("%g", argument->real);
      return;
    case 'i':
    case 'n':
      argument->type = Type::kSigned;
      argument->number = uint64_t(unzigzag(from.varint()));
      argument->text = std::to_string(int64_t(argument->number));
      return;
    case 'x':
    case 'p':
      argument->type = Type::kAddress;
      argument->number = from.varint();
      argument->text = format("%#llx", static_cast<unsigned long long>(argument->number));
      if (argument->number == 0) argument->text = "0x0";
      return;
    case 'u':
    case 'z':
    case 'm':
      argument->type = Type::kUnsigned;
      argument->number = from.varint();
      argument->text = std::to_string(argument->number);
      return;
    default:
      argument->text = "{...}";
  }
}

Argument read_argument(Cursor& from, const Parameter& parameter) {
  Argument argument;
  argument.parameter = &parameter;
  argument.output = is_output(parameter.kind);
  if (parameter.kind == 's') {
    read_text(from, &argument);
    return argument;
  }
  if (argument.output) {
    const uint8_t given = from.byte();
    if (given != kValue) {
      argument.text = given == kNull ? "null" : "-";
      return argument;
    }
  }
  read_value(from, parameter.kind, &argument);
  return argument;
}

bool parse_table(const std::string& text, std::vector<Function>* functions) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    Function function;
    for (size_t word = at; word < end;) {
      const size_t next = std::min(text.find(' ', word), end);
      const std::string part = text.substr(word, next - word);
      word = next + 1;
      if (function.name.empty()) {
        function.name = part;
        continue;
      }
      if (part.size() < 3 || part[part.size() - 2] != ':') return false;
      if (function.parameters.size() == kParametersMax) return false;
      function.parameters.push_back({part.substr(0, part.size() - 2), part.back()});
    }
    if (!function.name.empty()) functions->push_back(std::move(function));
    at = end + 1;
  }
  return functions->size() <= UINT16_MAX;
}

}  // namespace

Outcome begin_file(const std::string& path, std::string* absolute) {
  const Descriptor file(path.c_str(), O_RDWR | O_CREAT | O_NONBLOCK);
  struct stat about;
  if (file.fd < 0 || fstat(file.fd, &about) != 0) return cannot(path);
  if (!S_ISREG(about.st_mode)) return Outcome::fail(path + " is no ordinary file");
  char magic[sizeof kMagic] = {};
  const bool trace = pread(file.fd, magic, sizeof magic, 0) == sizeof magic && memcmp(magic, kMagic, sizeof magic) == 0;
  if (about.st_size != 0 && !trace)
    return Outcome::fail(path + " is there already and is no trace: take another name, or delete it");
  std::string text = kTableText;
  const uint64_t hash = hash_of(text);
  text.append((8 - text.size() % 8) % 8, '\n');
  FileHead head = {};
  memcpy(head.magic, kMagic, sizeof kMagic);
  head.version = kVersion;
  head.table_bytes = uint32_t(text.size());
  head.table_hash = hash;
  text.insert(0, reinterpret_cast<const char*>(&head), sizeof head);
  if (ftruncate(file.fd, 0) != 0) return cannot(path);
  if (write(file.fd, text.data(), text.size()) != ssize_t(text.size())) return cannot(path);
  char full[PATH_MAX];
  if (realpath(path.c_str(), full) == nullptr) return cannot(path);
  *absolute = full;
  return {};
}

Outcome TraceFile::read_head(const std::string& path) {
  const Descriptor file(path.c_str(), O_RDONLY | O_NONBLOCK);
  struct stat about;
  if (file.fd < 0 || fstat(file.fd, &about) != 0) return cannot(path);
  if (!S_ISREG(about.st_mode)) return Outcome::fail(path + " is no ordinary file");
  bytes_.resize(size_t(about.st_size));
  size_t have = 0;
  for (ssize_t n; have < bytes_.size() && (n = ::read(file.fd, bytes_.data() + have, bytes_.size() - have)) != 0;) {
    if (n < 0 && errno != EINTR) return cannot(path);
    if (n > 0) have += size_t(n);
  }
  bytes_.resize(have);
  FileHead head;
  if (have < sizeof kMagic || memcmp(bytes_.data(), kMagic, sizeof kMagic) != 0)
    return Outcome::fail(path + " is not a trace of `tide run --trace`");
  if (have < sizeof head) return Outcome::fail(path + " is cut: nothing of it can be read");
  memcpy(&head, bytes_.data(), sizeof head);
  if (head.version != kVersion) {
    return Outcome::fail(
        format("%s is a trace of format %u, this tide reads format %u", path.c_str(), head.version, kVersion));
  }
  if (head.table_bytes > kTableBytesMax) return Outcome::fail(path + " is damaged: its table cannot be that long");
  frames_at_ = sizeof head + head.table_bytes;
  if (have < frames_at_) return Outcome::fail(path + " is cut: nothing of it can be read");
  if (!parse_table(bytes_.substr(sizeof head, head.table_bytes), &functions_))
    return Outcome::fail(path + " is damaged: its table cannot be read");
  return {};
}

Outcome TraceFile::read(const std::string& path, TraceFile* file) {
  if (Outcome o = file->read_head(path); !o.ok()) return o;
  file->read_frames();
  // Of calls that began at once, the outer one first.
  std::stable_sort(file->calls_.begin(), file->calls_.end(), [](const Call& a, const Call& b) {
    return a.begin_ns != b.begin_ns ? a.begin_ns < b.begin_ns : a.duration_ns > b.duration_ns;
  });
  file->name_kernels();
  file->look_for_gaps();
  return {};
}

// The bytes of the frame at `at`, 0 where none is whole.
size_t TraceFile::whole_frame(size_t at) const {
  FrameHead head;
  if (bytes_.size() - at < sizeof head) return 0;
  memcpy(&head, bytes_.data() + at, sizeof head);
  if (head.magic != kFrameMagic || head.bytes > kFrameBytesMax) return 0;
  const size_t all = sizeof head + (size_t(head.bytes) + 7) / 8 * 8;
  const bool here = bytes_.size() - at >= all && check_of(bytes_.data() + at + sizeof head, head.bytes) == head.check;
  return here ? all : 0;
}

void TraceFile::read_frames() {
  const std::string magic(reinterpret_cast<const char*>(&kFrameMagic), sizeof kFrameMagic);
  size_t damaged = 0, at = frames_at_;
  while (at < bytes_.size()) {
    if (const size_t frame = whole_frame(at); frame != 0) {
      take_frame(at);
      at += frame;
      continue;
    }
    // The next that is whole: frames after a piece that was cut begin anywhere.
    size_t next = at;
    do {
      next = bytes_.find(magic, next + 1);
    } while (next != std::string::npos && whole_frame(next) == 0);
    if (next == std::string::npos) {
      problems_.push_back(format("the file ends in the middle: its last %zu bytes are not whole", bytes_.size() - at));
      break;
    }
    damaged += next - at;
    at = next;
  }
  if (damaged != 0) problems_.push_back(format("%zu bytes in the middle are damaged and left out", damaged));
}

uint32_t TraceFile::process_of(const FrameHead& head) {
  const auto [at, made] = by_name_.try_emplace({head.pid, head.process_ns}, uint32_t(processes_.size()));
  if (made) {
    processes_.emplace_back();
    processes_.back().pid = head.pid;
    processes_.back().begin_ns = head.process_ns;
  }
  return at->second;
}

void TraceFile::take_frame(size_t at) {
  FrameHead head;
  memcpy(&head, bytes_.data() + at, sizeof head);
  const size_t payload = at + sizeof head;
  const char* from = bytes_.data() + payload;
  if (head.kind == FrameKind::kCalls) return take_calls(head, payload);
  if (head.kind == FrameKind::kProcess && head.bytes >= sizeof(ProcessPayload)) {
    ProcessPayload about;
    memcpy(&about, from, sizeof about);
    Process& process = processes_[process_of(head)];
    process.parent = about.parent;
    process.wall_seconds = about.wall_seconds;
    std::string command(from + sizeof about, head.bytes - sizeof about);
    while (!command.empty() && command.back() == 0) command.pop_back();
    std::replace(command.begin(), command.end(), '\0', ' ');
    process.command = printable(command.data(), command.size());
  } else if (head.kind == FrameKind::kEnd && head.bytes >= sizeof(EndPayload)) {
    EndPayload end;
    memcpy(&end, from, sizeof end);
    Process& process = processes_[process_of(head)];
    process.ended = true;
    process.recorded = end.recorded;
    process.lost = end.lost;
  }
}

void TraceFile::take_calls(const FrameHead& head, size_t payload) {
  const uint32_t process = process_of(head);
  Cursor from(bytes_.data() + payload, head.bytes);
  while (from.ok() && !from.over()) {
    Call call = {};
    call.process = process;
    call.thread = head.thread;
    const uint64_t function = from.varint();
    call.begin_ns = head.base_ns + uint64_t(unzigzag(from.varint()));
    call.duration_ns = from.varint();
    const uint8_t mask = from.byte();
    uint64_t result = 0;
    TravelCounters& t = call.travel;
    uint64_t* const fields[] = {&result, &t.commands, &t.sent_bytes, &t.received_bytes, &t.round_trips, &t.wait_ns};
    for (int i = 0; i < 6; ++i) {
      if ((mask & 1 << i) != 0) *fields[i] = from.varint();
    }
    if (!from.ok() || function >= functions_.size()) break;
    call.function = uint16_t(function);
    call.result = int32_t(result);
    const char* arguments = from.at();
    for (const Parameter& parameter : functions_[function].parameters) (void)read_argument(from, parameter);
    if (!from.ok()) break;
    call.arguments = uint64_t(arguments - bytes_.data());
    call.argument_bytes = uint32_t(from.at() - arguments);
    calls_.push_back(call);
    ++processes_[process].seen;
  }
  if (!from.ok() || !from.over()) problems_.push_back(format("calls of process %u cannot be read", head.pid));
}

std::vector<Argument> TraceFile::arguments(const Call& call) const {
  std::vector<Argument> all;
  Cursor from(bytes_.data() + call.arguments, call.argument_bytes);
  for (const Parameter& parameter : function(call).parameters) all.push_back(read_argument(from, parameter));
  return all;
}

// A program asks for a kernel by its name, and later for the function of a kernel.
void TraceFile::name_kernels() {
  for (const Call& call : calls_) {
    const std::string& name = function(call).name;
    const bool by_name = name == "cuModuleGetFunction" || name == "cuLibraryGetKernel";
    if (call.result != 0 || (!by_name && name != "cuKernelGetFunction")) continue;
    const std::vector<Argument> given = arguments(call);
    if (given.size() < (by_name ? 3u : 2u) || given[0].type != Argument::Type::kAddress) continue;
    const auto known = kernels_.find({call.process, given[1].number});
    const std::string text = by_name ? given[2].text : known != kernels_.end() ? known->second : "";
    if (!text.empty()) kernels_[{call.process, given[0].number}] = text;
  }
}

std::string TraceFile::kernel_name(const Call& call) const {
  for (const Argument& argument : arguments(call)) {
    const std::string& name = argument.parameter->name;
    if (name != "f" && name != "hfunc" && name != "func" && name != "kernel") continue;
    const auto known = kernels_.find({call.process, argument.number});
    return known != kernels_.end() ? known->second : "";
  }
  return "";
}

void TraceFile::keep_profiled() {
  std::vector<Call> kept;
  std::vector<bool> profiled(processes_.size());
  for (const Call& call : calls_) {
    const std::string& name = function(call).name;
    const bool start = name == "cuProfilerStart", stop = name == "cuProfilerStop";
    if (start || stop)
      profiled[call.process] = start;
    else if (profiled[call.process])
      kept.push_back(call);
  }
  calls_.swap(kept);
}

void TraceFile::look_for_gaps() {
  for (const Process& p : processes_) {
    if (!p.ended) {
      problems_.push_back(
          format("process %u did not end its trace: it still runs, was killed, or had no room left; up to a second of "
                 "its last calls is missing",
                 p.pid));
    } else if (p.recorded > p.seen || p.lost != 0) {
      const uint64_t missing = p.lost + (p.recorded > p.seen ? p.recorded - p.seen : 0);
      problems_.push_back(format("of process %u, %llu calls are missing", p.pid, (unsigned long long)missing));
    }
  }
}

}  // namespace tide::trace
